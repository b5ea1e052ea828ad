"""What a training costs in network evaluations: counted by hooks on its networks while steps of it really run.

One evaluation is one sample through one network. A backward pass counts one more for the gradient that goes through
the network, and another one where the network's weights receive gradients: forward and backward of a network in
training are 3, of a frozen one with gradients to its input 2, without gradients 1. A pass that ends at the bottleneck,
as a discriminator's logit needs it, counts the encoder's share of a whole one's floating-point operations. Only
denoisers count (teacher, generator, fake score, discriminator); networks that a distance looks through do not.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from unistep.methods.base import Method
from unistep.training.batches import BatchSource
from unistep.training.config import TrainingConfig
from unistep.training.distributed import unwrap
from unistep.training.health import HealthMonitor
from unistep.training.memory import peak_bytes, reset_peak
from unistep.training.state import TrainState
from unistep.training.step import train_step

COUNTING = 2
"""Version of what an evaluation is; 1 charged whole passes for logits."""


@dataclass
class EvaluationCount:
    """Evaluations counted so far, forward and backward."""

    forward: float = 0
    backward: float = 0

    @property
    def evaluations(self) -> float:
        """Both."""
        return self.forward + self.backward

    def note(self, network: nn.Module, inputs: tuple[Any, ...], settings: dict[str, Any], output: Any) -> None:
        """A forward hook: the rows of this call, and those of its backward pass once it comes."""
        share = cast(float, unwrap(network).encoder_share) if settings.get("output") == "logits" else 1
        rows = len(inputs[0]) * share
        self.forward += rows
        outputs = [o for o in (output if isinstance(output, tuple) else (output,)) if isinstance(o, Tensor)]
        if waiting := [o for o in outputs if o.requires_grad]:
            each = rows * (2 if any(p.requires_grad for p in network.parameters()) else 1)
            once = self.counter(each)
            for tensor in waiting:
                tensor.register_hook(once)

    def counter(self, evaluations: float) -> Callable[[Tensor], None]:
        """A tensor hook that counts when the first gradient of a call arrives, and then no more."""
        left = [evaluations]

        def arrived(gradient: Tensor) -> None:
            self.backward += left.pop() if left else 0

        return arrived


@contextmanager
def counted(networks: Iterable[nn.Module]) -> Iterator[EvaluationCount]:
    """Counts the evaluations of the networks inside the `with` block; one that is given twice counts once."""
    tally = EvaluationCount()
    distinct = {id(n): n for n in networks}.values()
    handles = [network.register_forward_hook(tally.note, with_kwargs=True) for network in distinct]
    try:
        yield tally
    finally:
        for handle in handles:
            handle.remove()


Pattern = tuple[Any, ...]


def pattern(method: Method, step: int) -> Pattern:
    """What tells steps of different cost apart: the phases, and the stage that the milestones put the step in."""
    phases = tuple((p.name, p.trains, p.reuses_samples, p.denoising_step) for p in method.phases(step))
    stage = tuple((name, sum(m <= step for m in steps)) for name, steps in sorted(method.milestones().items()))
    return phases, stage


@dataclass(frozen=True)
class StepCost:
    """Of one training step: network evaluations, seconds if timed, bytes of memory at its peak where known."""

    evaluations: float
    seconds: float | None
    memory: int | None


def measure_step(
    build: Callable[[], Method],
    teacher: nn.Module,
    batches: BatchSource,
    config: TrainingConfig,
    device: torch.device,
    step: int,
    timed: int = 0,
) -> StepCost:
    """Runs a step of a training that is thrown away: once to count, then `timed` times for the median of the seconds.

    Args:
        build: makes the method with networks of its own.
        teacher: the frozen denoiser.
        batches: batches of the right shapes; what they hold does not matter.
        config: the loop's settings.
        device: where the networks are.
        step: which step.
        timed: repetitions.
    """
    gc.collect()
    reset_peak(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        method = build()
        state = TrainState.start(method, config, HealthMonitor(steps=config.steps))

        def run() -> float:
            state.step, started = step, time.perf_counter()
            train_step(state, batches, config, device)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            return time.perf_counter() - started

        with counted([teacher, *method.networks.values(), *method.auxiliary_networks.values()]) as tally:
            run()
        seconds = statistics.median(run() for _ in range(timed)) if timed else None
    return StepCost(tally.evaluations, seconds, peak_bytes(device))
