"""Precision, recall, density and coverage: do samples lie among real images, and real images among samples."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unistep.evaluation.extractors.base import Observed, Reference, require_samples

CHUNK = 1024  # rows of a distance matrix held at once


def neighbour_radii(features: Tensor, k: int) -> Tensor:
    """Distance of each row to its k-th nearest other row, [n, d] -> float64 [n]."""
    features = features.double()
    nearest = [torch.cdist(rows, features).topk(k + 1, dim=1, largest=False) for rows in features.split(CHUNK)]
    return torch.cat([found.values[:, k] for found in nearest])  # column 0 is the row itself


def precision_recall_density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> dict[str, float]:
    """The four figures for features real [n, d] and fake [m, d], with balls of the k-th neighbour's radius.

    Precision: share of fakes in some real ball; recall: share of reals in some fake ball (Kynkaanniemi et al. 2019,
    arXiv:1904.06991). Density: real balls around a fake, over k; coverage: share of real balls that hold a fake
    (Naeem et al. 2020, arXiv:2002.09797). Distances are float64: by products of float32 those of features far from the
    origin are off in the third digit.
    """
    real, fake = real.double(), fake.double()
    real_radii, fake_radii = neighbour_radii(real, k), neighbour_radii(fake, k)
    in_fake_ball = torch.zeros(len(real), dtype=torch.bool)
    holds_fake = torch.zeros(len(real), dtype=torch.bool)
    in_real_balls = torch.zeros(len(fake), dtype=torch.int64)
    for start in range(0, len(real), CHUNK):
        rows = slice(start, start + CHUNK)
        distances = torch.cdist(real[rows], fake)
        inside = distances <= real_radii[rows, None]
        in_real_balls += inside.sum(0, dtype=torch.int32)
        holds_fake[rows] = inside.any(1)
        in_fake_ball[rows] = (distances <= fake_radii).any(1)
    return {
        "precision": float((in_real_balls > 0).double().mean()),
        "recall": float(in_fake_ball.double().mean()),
        "density": float(in_real_balls.double().mean() / k),
        "coverage": float(holds_fake.double().mean()),
    }


class NeighbourMetrics:
    """The four figures on equal numbers of samples and reference images: the first ones of the larger set."""

    name = "prdc"

    def __init__(self, reference: Reference, k: int = 5, needed: int = 1000) -> None:
        self.reference = reference
        self.k, self.needed = k, needed
        self.parts: list[Tensor] = []

    @property
    def real_needed(self) -> int:
        return max(self.needed, self.k + 1)

    def update(self, seen: Observed) -> None:
        self.parts.append(seen.features)

    def merge(self, other: "NeighbourMetrics") -> None:
        self.parts += other.parts

    def compute(self) -> dict[str, float]:
        fake = torch.cat(self.parts) if self.parts else torch.zeros(0, 1)
        real = self.reference.features
        why = "the figures depend on the number"
        require_samples(self.name, len(fake), max(self.needed, self.k + 1), why)
        require_samples(f"{self.name}, reference", len(real), self.real_needed, why)
        n = min(len(real), len(fake))
        return precision_recall_density_coverage(real[:n], fake[:n], self.k)

    def settings(self) -> Mapping[str, Any]:
        return {"k": self.k, "reference_count": len(self.reference.features)}
