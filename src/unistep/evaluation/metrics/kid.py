"""Kernel distance (KID): the squared maximum mean discrepancy under a cubic kernel, unbiased, over seeded subsets."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unistep.evaluation.extractors.base import Observed, Reference, require_samples


def kernel_sum(x: Tensor, y: Tensor) -> Tensor:
    """Sum over all pairs of (x . y / d + 1)^3, [n, d] and [m, d] (Binkowski et al. 2018, arXiv:1801.01401)."""
    base = torch.addmm(x.new_ones(()), x, y.T, alpha=1 / x.shape[1]).flatten()
    return base.square() @ base


def diagonal_sum(x: Tensor) -> Tensor:
    """Sum of the kernel of each row with itself."""
    return (x.square().mean(1) + 1).pow(3).sum()


def squared_mmd(x: Tensor, y: Tensor) -> float:
    """Unbiased estimate of MMD^2 between the sources of x [n, d] and y [m, d]; may fall below zero."""
    n, m = len(x), len(y)
    within_x = (kernel_sum(x, x) - diagonal_sum(x)) / (n * (n - 1))
    within_y = (kernel_sum(y, y) - diagonal_sum(y)) / (m * (m - 1))
    return float(within_x + within_y - 2 * kernel_sum(x, y) / (n * m))


class KernelDistance:
    """Mean and standard deviation of MMD^2 over subsets drawn without replacement from samples and reference.

    The standard deviation is that of one subset's estimate, as is customary, not the error of the mean.
    """

    name = "kid"

    def __init__(self, reference: Reference, subset: int = 1000, num_subsets: int = 50, seed: int = 0) -> None:
        self.reference = reference
        self.subset, self.num_subsets, self.seed = subset, num_subsets, seed
        self.parts: list[Tensor] = []

    @property
    def needed(self) -> int:
        return self.subset

    @property
    def real_needed(self) -> int:
        return self.subset

    def update(self, seen: Observed) -> None:
        self.parts.append(seen.features)

    def merge(self, other: "KernelDistance") -> None:
        self.parts += other.parts

    def compute(self) -> dict[str, float]:
        samples = torch.cat(self.parts).double() if self.parts else torch.zeros(0, 1)
        real = self.reference.features.double()
        require_samples(self.name, len(samples), self.subset, "one subset")
        require_samples(f"{self.name}, reference", len(real), self.subset, "one subset")
        draws = torch.Generator().manual_seed(self.seed)
        values = [squared_mmd(self.draw(samples, draws), self.draw(real, draws)) for _ in range(self.num_subsets)]
        every = torch.tensor(values, dtype=torch.float64)
        return {"kid": float(every.mean()), "kid_sd": float(every.std(correction=0))}

    def draw(self, features: Tensor, draws: torch.Generator) -> Tensor:
        """A random subset of the rows."""
        return features[torch.randperm(len(features), generator=draws)[: self.subset]]

    def settings(self) -> Mapping[str, Any]:
        return {"subset": self.subset, "num_subsets": self.num_subsets, "seed": self.seed}
