"""The interface between a method and the training loop: phases with their losses, batches, randomness."""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from unistep.types import Cond

Stream = Literal["pairs", "images"]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One rank's rows of one micro-batch.

    Attributes:
        size: number of unpaired rows.
        cond: condition of the unpaired rows, [size].
        real, real_cond: real images in model space [size, *dims] and their condition.
        pair_z, pair_x, pair_cond: noise-image pairs and their condition.
        samples: generator outputs of an earlier phase of the same step, detached; `cond` is then their condition.
    """

    size: int
    cond: Cond = None
    real: Tensor | None = None
    real_cond: Cond = None
    pair_z: Tensor | None = None
    pair_x: Tensor | None = None
    pair_cond: Cond = None
    samples: Tensor | None = None

    def pairs(self) -> tuple[Tensor, Tensor, Cond]:
        """z [b, *dims], x [b, *dims] and the condition of the noise-image pairs.

        Raises:
            ValueError: for a batch without pairs.
        """
        if self.pair_z is None or self.pair_x is None:
            raise ValueError("found a batch without noise-image pairs, expected some; declare Phase(inputs={'pairs'})")
        return self.pair_z, self.pair_x, self.pair_cond

    def images(self) -> tuple[Tensor, Cond]:
        """Real images [b, *dims] and their condition.

        Raises:
            ValueError: for a batch without real images.
        """
        if self.real is None:
            raise ValueError("found a batch without real images, expected some; declare Phase(inputs={'images'})")
        return self.real, self.real_cond


@dataclass(frozen=True, kw_only=True)
class LossOutput:
    """Named per-sample terms and their weights; the loop reduces, checks and logs them.

    Attributes:
        terms: name -> losses [n], one per sample.
        weights: name -> weight; a term without a weight is logged and has no gradient.
        samples: generator outputs of this phase, detached, for later phases of the step.
        cond: condition of the samples if they are more than the unpaired rows; None = the batch's.
        logs: name -> scalar to log, without gradient.
    """

    terms: Mapping[str, Tensor]
    weights: Mapping[str, float]
    samples: Tensor | None = None
    cond: Cond = None
    logs: Mapping[str, Tensor] = field(default_factory=dict)

    def total(self) -> Tensor:
        """sum_k weights[k] * mean(terms[k]), a scalar."""
        return torch.stack([w * self.terms[k].mean() for k, w in self.weights.items()]).sum()


class Random(Protocol):
    """Randomness of one phase of one step: row i depends on (seed, step, phase, i) only, not on rank or batch split."""

    def normal(self, rows: int, *dims: int) -> Tensor:
        """[rows, *dims] unit Gaussian, float32."""
        ...

    def integers(self, rows: int, low: int, high: int) -> Tensor:
        """[rows] int64, uniform in low..high inclusive."""
        ...

    def uniform(self, rows: int) -> Tensor:
        """[rows] uniform in [0, 1), float32."""
        ...


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One optimizer update within a training step.

    Attributes:
        name: unique within a step (`generator`, `fake_score`, `fake_score.2`); names the random stream of the phase.
        trains: names of the networks that receive gradients and are updated.
        loss: (batch, rng) -> loss terms; only the networks in `trains` require gradients while it runs.
        inputs: streams that the batch holds beside conditions: noise-image `pairs`, real `images`.
        reuses_samples: the batch is that of an earlier phase of the step, with its samples (Algorithm 1).
        denoising_step: which evaluation of a multi-step generator is trained, 0 = the first.
    """

    name: str
    trains: tuple[str, ...]
    loss: Callable[[Batch, Random], LossOutput]
    inputs: Set[Stream] = frozenset()
    reuses_samples: bool = False
    denoising_step: int = 0


def repeat_update(phase: Phase, count: int) -> tuple[Phase, ...]:
    """Repeats an update within a step as `name`, `name.1`, ...; only the first reuses samples."""
    repeats = (replace(phase, name=f"{phase.name}.{i}", reuses_samples=False) for i in range(1, count))
    return (phase, *repeats)[:count]


class Method(Protocol):
    """A training method as the loop sees it; classes that inherit it define only what differs from the defaults.

    Attributes:
        networks: the trainable networks by name, sharded or replicated before the method sees them.
        ema_network: name of the network whose moving average is kept, evaluated and exported.
        auxiliary_networks: networks that are not trained but follow the trained ones; saved and restored with the run.
    """

    networks: Mapping[str, nn.Module]
    ema_network: str
    auxiliary_networks: Mapping[str, nn.Module] = MappingProxyType({})

    def phases(self, step: int) -> tuple[Phase, ...]:
        """The updates of a training step, in their order."""
        ...

    def milestones(self) -> Mapping[str, tuple[int, ...]]:
        """Network -> steps at which one of its loss terms or stages begins; its learning rate warms up again there."""
        return {}

    def monitor_samples(self, batch: Batch, rng: Random) -> Tensor | None:
        """Samples [batch.size, *dims] of the complete generator for the health monitor.

        None: the samples of the phases are samples of the complete generator already.
        """
        return None

    def health_losses(self, logs: Mapping[str, float]) -> tuple[float | None, float | None]:
        """Denoising losses of the fake score and of the teacher on generated samples, from the logged values.

        None stands for a loss that the method does not have.
        """
        return None, None

    def after_step(self, step: int) -> None:
        """Updates the auxiliary networks after the optimizer updates of a step (counted from 0)."""
        return
