"""What the health monitor is shown of a step: scalars of the generator's samples."""

import dataclasses

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
from unistep.training.step import local_part
from unistep.types import joined


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
    parts = [seen(state, batch, micro, config, device) for micro, batch in enumerate(made)]
    if sum(map(len, parts)) < 2:
        return None
    x = torch.cat(parts)
    found = dataclasses.asdict(sample_statistics(x))
    if diversity is not None:
        found["diversity"] = diversity(x, joined(*(batch.cond for batch in made)))
    return SampleStatistics(**mean_over_ranks(found))


def seen(state: TrainState, batch: Batch, micro: int, config: TrainingConfig, device: torch.device) -> Tensor:
    """The samples of a micro-batch, or what the method answers to its conditions where those are no final ones."""
    assert batch.samples is not None
    rng = StepRandom(config.seed, state.step, "watch", local_part(micro, config.accumulate), device)
    with autocast(device, config.precision):
        x = state.method.monitor_samples(batch, rng)
    return batch.samples if x is None else x
