"""Synthetic batches: noise in the shapes of a recipe's batches, to measure what a step costs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unistep.recipes.schema import DistillRecipe
from unistep.teachers.teacher import Teacher
from unistep.training.batches import Streams, TensorImages
from unistep.types import Cond, index_condition


@dataclass(frozen=True)
class PairRows:
    """Rows that stand in for pairs that are not made yet, a `Pairs` of any number of them."""

    z: Tensor
    x: Tensor
    cond: Cond

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, index: Tensor) -> "PairRows":
        return PairRows(self.z[index], self.x[index], index_condition(self.cond, index))


def synthetic_batches(recipe: DistillRecipe, teacher: Teacher, device: torch.device) -> Streams:
    """Batches of the entry's shapes: noise in the place of pairs and real images, which need not be there yet."""
    training, method, conditioner = recipe.training, recipe.method, teacher.conditioner
    seeds = torch.arange(max(training.batch, training.pair_batch or 0))
    draws = torch.Generator().manual_seed(0)
    z = torch.randn(len(seeds), *teacher.shape, generator=draws)
    labels = None if conditioner is None else conditioner.labels(seeds)
    cond = None if conditioner is None else conditioner.from_seeds(seeds)
    return Streams(
        seed=training.seed, batch=training.batch, pair_batch=training.pair_batch, device=device,
        conditioner=conditioner, pairs=PairRows(z, z.clamp(-1, 1), labels) if method.needs_pairs else None,
        images=TensorImages(z.clamp(-1, 1), cond) if method.needs_data else None,
    )  # fmt: skip
