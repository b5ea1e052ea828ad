"""The samples of a step that the health monitor reads, and their diversity."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unistep.methods.base import Batch
from unistep.networks.precision import autocast
from unistep.training.config import TrainingConfig
from unistep.training.distributed import mean_over_ranks
from unistep.training.health import SampleStatistics, sample_statistics
from unistep.training.hooks import Diversity
from unistep.training.random import StepRandom
from unistep.training.state import TrainState
from unistep.training.step import local_shard
from unistep.types import cat_conditions

ENOUGH_PAIRS = 100  # of one class, to expect in a batch; 64 samples of 10 classes: 200, their ratio scatters by 6 %


@dataclass(frozen=True)
class Spread:
    """Mean Euclidean distances between two of the teacher's samples.

    Attributes:
        overall: of any two.
        by_class: of two of a class.
        classes: how many there are among the samples, some with a single one perhaps.
    """

    overall: float
    by_class: Mapping[int, float]
    classes: int

    @classmethod
    def of(cls, features: Tensor, labels: Tensor | None) -> "Spread":
        """The spread of features [n, ...] with labels int64 [n] (None: no classes)."""
        same = {} if labels is None else {c: features[labels == c] for c in labels.unique().tolist()}
        pairs = {c: mean_distance(rows) for c, rows in same.items() if len(rows) > 1}
        return cls(mean_distance(features), pairs, len(same))

    def ratio(self, features: Tensor, labels: Tensor | None) -> float:
        """Mean distance of two samples over that of the teacher's; nan for fewer than two, or a teacher without spread.

        A generator that answers each class with one image is as diverse as its teacher over all classes, for these lie
        far apart. So where ten classes share a batch of 64, pairs of a class are compared, each with its own class's
        distance; with classes too many for that, any two.

        Args:
            features: [n, ...].
            labels: int64 [n] or None.
        """
        n = len(features)
        if labels is None or n * (n - 1) / 2 < ENOUGH_PAIRS * self.classes or not self.by_class:
            return mean_distance(features) / self.overall if self.overall > 0 else float("nan")
        unit = torch.tensor([self.by_class.get(c, float("nan")) for c in labels.tolist()])
        i, j = torch.triu_indices(n, n, 1)
        pairs = (labels[i] == labels[j]).cpu() & (unit[i] > 0)
        distances = torch.pdist(features.float().flatten(1)).cpu()
        return float((distances[pairs] / unit[i][pairs]).mean())


def mean_distance(features: Tensor) -> float:
    """Mean Euclidean distance of two rows of [n, ...]; nan for fewer than two."""
    return float(torch.pdist(features.float().flatten(1)).mean()) if len(features) > 1 else float("nan")


def statistics(
    state: TrainState, made: list[Batch], config: TrainingConfig, device: torch.device, diversity: Diversity | None
) -> SampleStatistics | None:
    """Of the samples of a step, averaged over ranks; None for fewer than two.

    Args:
        state: the run.
        made: this rank's batches with the samples that the step's phases made, one per micro-batch.
        config: the loop's settings.
        device: where the networks are.
        diversity: how far apart samples lie over how far the teacher's do.
    """
    parts = [complete_samples(state, batch, micro, config, device) for micro, batch in enumerate(made)]
    if sum(map(len, parts)) < 2:
        return None
    x = torch.cat(parts)
    found = dataclasses.asdict(sample_statistics(x))
    if diversity is not None:
        found["diversity"] = diversity(x, cat_conditions(*(batch.cond for batch in made)))
    return SampleStatistics(**mean_over_ranks(found))


def complete_samples(
    state: TrainState, batch: Batch, micro: int, config: TrainingConfig, device: torch.device
) -> Tensor:
    """The samples of a micro-batch, or what the method answers to its conditions where those are no final ones."""
    assert batch.samples is not None
    rng = StepRandom(config.seed, state.step, "watch", local_shard(micro, config.accumulate), device)
    with autocast(device, config.precision):
        x = state.method.monitor_samples(batch, rng)
    return batch.samples if x is None else x
