"""Judging points: modes covered, share near a mode, energy distance, sliced Wasserstein distance."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unistep.evaluation.extractors.base import require_samples

FEWEST = 100  # points that figures are made of
CHUNK = 1024  # rows of a distance matrix held at once


@dataclass(frozen=True, kw_only=True)
class Modes:
    """Where the samples ought to lie.

    Attributes:
        means: [m, d], centres of equal weight.
        sd: standard deviation around each, in every direction.
    """

    means: Tensor
    sd: float


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances [n, m] of rows in float64, by differences: near points keep their digits."""
    return torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist")


def nearest_mode(points: Tensor, modes: Modes) -> tuple[Tensor, Tensor]:
    """Distance to the nearest centre [n] and its index [n]."""
    parts = [distances(rows, modes.means).min(1) for rows in points.split(CHUNK)]
    return torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts])


def high_quality_share(points: Tensor, modes: Modes, within: float = 4.0) -> float:
    """Share of points within `within` standard deviations of some centre (0.9997 for exact samples in the plane)."""
    return float((nearest_mode(points, modes)[0] <= within * modes.sd).double().mean())


def modes_covered(points: Tensor, modes: Modes, threshold: float = 0.25, within: float = 4.0) -> int:
    """Number of modes that hold at least `threshold` of their fair share n/m, counting points near the centre only."""
    distance, index = nearest_mode(points, modes)
    held = torch.bincount(index[distance <= within * modes.sd], minlength=len(modes.means))
    return int((held >= threshold * len(points) / len(modes.means)).sum())


def mean_distance(x: Tensor, y: Tensor) -> float:
    """Mean Euclidean distance over all pairs of rows of x [n, d] and y [m, d], in float64."""
    total = sum(float(distances(rows, y).sum()) for rows in x.split(CHUNK))
    return total / (len(x) * len(y))


def energy_distance(x: Tensor, y: Tensor) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| of the two sets themselves (Szekely and Rizzo 2013), exact over all pairs.

    Never negative, and zero only for equal sets: two sets of n draws of one distribution lie about 2 E|X - X'| / n
    apart, which the floor row of a table shows.
    """
    require_samples("energy", min(len(x), len(y)), 1, "two sets of points")
    return 2 * mean_distance(x, y) - mean_distance(x, x) - mean_distance(y, y)


def sliced_wasserstein(x: Tensor, y: Tensor, num_directions: int = 128, seed: int = 0) -> float:
    """Mean over random directions of the 1-Wasserstein distance of the projections, x and y [n, d].

    Raises:
        UserError: for sets of different sizes (sorted projections are matched one to one).
    """
    require_samples("sliced_wasserstein", min(len(x), len(y)), max(len(x), len(y), 1), "as many as the other set has")
    draws = torch.Generator().manual_seed(seed)
    directions = torch.randn(x.shape[1], num_directions, generator=draws, dtype=torch.float64)
    directions = directions / directions.norm(dim=0)
    a, b = (x.double() @ directions).sort(0).values, (y.double() @ directions).sort(0).values
    return float((a - b).abs().mean())


def point_figures(points: Tensor, real: Tensor, modes: Modes | None) -> dict[str, float]:
    """All figures of points [n, d] against as many real points; those about modes only where modes are known."""
    require_samples("points", min(len(points), len(real)), FEWEST, "figures of fewer are noise")
    n = min(len(points), len(real))
    apart = {
        "energy": energy_distance(points[:n], real[:n]),
        "sliced_wasserstein": sliced_wasserstein(points[:n], real[:n]),
    }
    if modes is None:
        return apart
    covered = {"modes": float(modes_covered(points, modes)), "high_quality": high_quality_share(points, modes)}
    return covered | apart
