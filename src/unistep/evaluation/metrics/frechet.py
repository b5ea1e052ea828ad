"""Frechet distance between Gaussians fitted to features, from moments that merge across batches and ranks."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unistep.errors import UserError
from unistep.evaluation.extractors.base import Observed, Reference, require_samples

Array = NDArray[np.float64]


class FeatureMoments:
    """Count, mean and scatter of features [n, d] in float64, updated pairwise (Chan, Golub and LeVeque 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Array = np.zeros(0)
        self.scatter: Array = np.zeros((0, 0))  # sum of (f - mean)(f - mean)^T

    @property
    def cov(self) -> Array:
        """Unbiased covariance [d, d]; needs two samples."""
        return self.scatter / (self.count - 1)

    def update(self, features: Tensor) -> None:
        """Takes in features [n, d]."""
        batch = FeatureMoments()
        rows = features.double().cpu().numpy()
        batch.count, batch.mean = len(rows), rows.mean(0)
        batch.scatter = (rows - batch.mean).T @ (rows - batch.mean)
        self.merge(batch)

    def merge(self, other: "FeatureMoments") -> None:
        """Takes in the moments of other samples."""
        if not other.count:
            return
        if not self.count:
            self.count, self.mean, self.scatter = other.count, other.mean.copy(), other.scatter.copy()
            return
        count = self.count + other.count
        delta = other.mean - self.mean
        self.scatter = self.scatter + other.scatter + np.outer(delta, delta) * (self.count * other.count / count)
        self.mean = self.mean + delta * (other.count / count)
        self.count = count


def frechet_distance(mean_1: Array, cov_1: Array, mean_2: Array, cov_2: Array) -> float:
    """|mu_1 - mu_2|^2 + Tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)), Heusel et al. 2017 (arXiv:1706.08500), Eq. 6.

    With C_i = L_i L_i^T the last trace is the nuclear norm of L_1^T L_2: real by construction, and exact where C_1 C_2
    is singular or nearly so (fewer samples than features, dead features).

    Raises:
        UserError: for a covariance that is not positive semi-definite, or numbers that are not finite.
    """
    if not all(np.isfinite(part).all() for part in (mean_1, cov_1, mean_2, cov_2)):
        raise UserError("frechet: found features that are not finite, expected numbers; the samples are no images")
    cross = np.linalg.svd(factor(cov_1).T @ factor(cov_2), compute_uv=False).sum()
    offset = np.square(mean_1 - mean_2).sum()
    return float(max(0.0, offset + np.trace(cov_1) + np.trace(cov_2) - 2 * cross))


def factor(cov: Array) -> Array:
    """L [d, d] with L L^T = cov, from the eigenvalues; those below zero by rounding count as zero."""
    values, vectors = np.linalg.eigh((cov + cov.T) / 2)
    if values[0] < -1e-7 * max(values[-1], 1e-300):
        raise UserError(f"frechet: found a covariance with eigenvalue {values[0]:.3g}, expected none below zero")
    return vectors * np.sqrt(values.clip(0))


class FrechetDistance:
    """Frechet distance of the samples' features to a reference; smaller is better, biased upwards for few samples."""

    name = "frechet"
    real_needed = 0

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self.moments = FeatureMoments()

    @property
    def needed(self) -> int:
        return 2 * len(self.reference.mean)

    @property
    def images_needed(self) -> int:
        """Fewest real images behind the reference's moments: more than features."""
        return len(self.reference.mean) + 1

    def update(self, seen: Observed) -> None:
        self.moments.update(seen.features)

    def merge(self, other: "FrechetDistance") -> None:
        self.moments.merge(other.moments)

    def compute(self) -> dict[str, float]:
        require_samples(self.name, self.moments.count, self.needed, f"twice the {len(self.reference.mean)} features")
        mean, cov = self.moments.mean, self.moments.cov
        return {"frechet": frechet_distance(mean, cov, self.reference.mean, self.reference.cov)}

    def settings(self) -> Mapping[str, Any]:
        return {"reference_count": self.reference.count, "features": len(self.reference.mean)}
