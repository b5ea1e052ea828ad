"""The contract of a method: it declares who learns in which phase and what the loss is; the loop executes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor, nn

from unistep.types import Cond


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One optimiser update within a step.

    Attributes:
        name: name of the phase, unique within a step (`generator`, `fake_score`, `fake_score.2`).
        trains: names of the networks that receive gradients and are stepped.
        reuses_samples: the phase works on the samples that an earlier phase of this step made (Algorithm 1).
        step: the training step, for losses that change with it.
        depth: which step of a generator of several learns, 0 = the first.
    """

    name: str
    trains: tuple[str, ...]
    reuses_samples: bool = False
    step: int = 0
    depth: int = 0


def updates_of(network: str, count: int, reuses_samples: bool = True, depth: int = 0) -> tuple[Phase, ...]:
    """So many updates of one network in a step: `name`, `name.1`, ...; the first on samples made before, or none."""
    names = [f"{network}.{i}" if i else network for i in range(count)]
    return tuple(
        Phase(name=name, trains=(network,), reuses_samples=reuses_samples and name == network, depth=depth)
        for name in names
    )


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What the loop hands to a method: this rank's rows of one micro-batch.

    Attributes:
        size: number of rows of the unpaired stream.
        cond: condition of the unpaired stream, [size].
        real, real_cond: real images in model space, for methods that need data.
        pair_z, pair_x, pair_cond: a slice of the stream of noise-image pairs.
        samples: outputs of the generator made by an earlier phase of the same step, detached; `cond` is theirs then.
    """

    size: int
    cond: Cond = None
    real: Tensor | None = None
    real_cond: Cond = None
    pair_z: Tensor | None = None
    pair_x: Tensor | None = None
    pair_cond: Cond = None
    samples: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class LossOutput:
    """Named per-sample terms and their weights; the loop reduces, checks and logs them.

    Attributes:
        terms: name -> [n] losses, one per sample; streams may differ in length.
        weights: name -> weight; a term without a weight is logged but not trained on.
        samples: generator outputs of this phase, detached, for later phases of the step.
        cond: condition of the samples, where they are more than the batch's unpaired stream; None = the batch's.
        logs: name -> scalar to log (no gradient).
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


class Method(Protocol):
    """A training method as the loop sees it; classes that inherit it need to say only what differs from the defaults.

    Attributes:
        networks: the trainable ones by name, sharded or replicated before the method sees them.
        averaged: the network whose EMA is kept, evaluated and exported.
        carried: networks that are not trained but follow the trained ones, saved and restored with the run.
        pair_phases, image_phases: names of the phases that are given noise-image pairs, real images.
    """

    networks: Mapping[str, nn.Module]
    averaged: str
    carried: Mapping[str, nn.Module] = MappingProxyType({})
    pair_phases: tuple[str, ...] = ()
    image_phases: tuple[str, ...] = ()

    def phases(self, step: int) -> tuple[Phase, ...]:
        """Who learns at this step, in which order."""
        ...

    def milestones(self) -> Mapping[str, tuple[int, ...]]:
        """Network -> steps at which a loss term of its own is switched on, or a stage of its own begins.

        Its learning rate warms up again there.
        """
        return {}

    def loss(self, phase: Phase, batch: Batch, rng: Random) -> LossOutput:
        """Loss terms of one phase; only the networks in `phase.trains` require gradients while it runs."""
        ...

    def watched(self, batch: Batch, rng: Random) -> Tensor | None:
        """Samples [batch.size, *dims] as the finished generator makes them, for the health monitor.

        None: the samples that the phases made are such samples already.
        """
        return None

    def after_step(self, step: int) -> None:
        """Called once after the updates of a step (counted from 0), where carried networks follow."""
        return
