"""What the caller of the loop may add: evaluation, previews and references for the health monitor."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from unistep.methods.base import Method
from unistep.training.ema import EMA
from unistep.training.health import HealthConfig, SampleStatistics
from unistep.types import Cond


@dataclass(frozen=True, kw_only=True)
class View:
    """The run as a hook sees it.

    Attributes:
        step: completed steps.
        method: the method with its networks.
        network: the averaged network with its raw weights, wrapped as the method sees it.
        ema: its average, or None.
        run_dir: the run's folder.
        device: where the networks are.
    """

    step: int
    method: Method
    network: nn.Module
    ema: EMA | None
    run_dir: Path
    device: torch.device

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """`network` in eval mode with the averaged weights (raw ones without an average) inside the `with` block."""
        with eval_mode(self.network), self.ema.applied() if self.ema is not None else nullcontext():
            yield self.network


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """No dropout inside the `with` block; afterwards every module is in the mode it was in."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


Evaluate = Callable[[View], float | Mapping[str, float]]
Preview = Callable[[View], None]
Diversity = Callable[[Tensor, Cond], float]


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """Called on every rank (a sharded network needs them all), in eval spirit: they must leave the weights alone.

    Attributes:
        evaluate: a number, lower is better, or several by name with the deciding one under `score`.
        preview: draws and writes a grid (rank 0 writes).
        diversity: samples [b, *dims] and their condition -> how far apart they lie over how far the teacher's do (nan:
            too few to tell); None leaves it unjudged.
        reference: statistics of the teacher's samples; None leaves drift unjudged.
        health: thresholds of the alarms.
        message: takes the lines for the user instead of progress bar and console; None = those.
    """

    evaluate: Evaluate | None = None
    preview: Preview | None = None
    diversity: Diversity | None = None
    reference: SampleStatistics | None = None
    health: HealthConfig | None = None
    message: Callable[[str], None] | None = None
