"""Randomness from one generator, recording the ranges that were asked for."""

import torch
from torch import Tensor


class FixedRandom:
    """What the loop hands to a method, here without step, phase or rank."""

    def __init__(self, seed: int = 0):
        self.generator, self.ranges = torch.Generator().manual_seed(seed), []

    def normal(self, rows: int, *dims: int) -> Tensor:
        return torch.randn(rows, *dims, generator=self.generator)

    def integers(self, rows: int, low: int, high: int) -> Tensor:
        self.ranges.append((low, high))
        return torch.randint(low, high + 1, (rows,), generator=self.generator)

    def uniform(self, rows: int) -> Tensor:
        return torch.rand(rows, generator=self.generator)
