"""Frechet distance: closed forms, scipy's matrix square root, merging, singular covariances, too few samples."""

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unistep.errors import UserError
from unistep.evaluation import Observed
from unistep.evaluation.metrics.frechet import FeatureMoments, FrechetDistance, frechet_distance


def random_cov(seed: int, d: int, rank: int | None = None) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(rank or 3 * d, d))
    return rows.T @ rows / len(rows)


def test_one_dimension_in_closed_form() -> None:
    found = frechet_distance(np.array([1.0]), np.array([[4.0]]), np.array([3.0]), np.array([[9.0]]))
    assert found == pytest.approx(2**2 + (2 - 3) ** 2)


def test_commuting_covariances_in_closed_form() -> None:
    q = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    a, b = np.array([1.0, 2, 3, 4, 5]), np.array([5.0, 0.5, 3, 0, 1])
    found = frechet_distance(np.zeros(5), q @ np.diag(a) @ q.T, np.ones(5), q @ np.diag(b) @ q.T)
    assert found == pytest.approx(5 + np.square(np.sqrt(a) - np.sqrt(b)).sum())


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), d=st.integers(1, 12))
def test_agrees_with_scipy(seed: int, d: int) -> None:
    a, b = random_cov(seed, d), random_cov(seed + 5000, d)
    mu = np.random.default_rng(seed).normal(size=d)
    expected = mu @ mu + np.trace(a + b - 2 * np.real(scipy.linalg.sqrtm(a @ b)))
    assert frechet_distance(mu, a, np.zeros(d), b) == pytest.approx(expected, rel=1e-7, abs=1e-8)
    assert frechet_distance(np.zeros(d), b, mu, a) == pytest.approx(expected, rel=1e-7, abs=1e-8)


def test_equal_singular_covariances_are_at_distance_zero() -> None:
    cov = random_cov(1, 30, rank=8)
    assert frechet_distance(np.zeros(30), cov, np.zeros(30), cov) < 1e-10


def test_a_covariance_with_a_negative_eigenvalue_is_refused() -> None:
    with pytest.raises(UserError, match="eigenvalue -1"):
        frechet_distance(np.zeros(2), np.diag([1.0, -1.0]), np.zeros(2), np.eye(2))


def test_merged_moments_equal_those_of_a_single_pass() -> None:
    features = 100 + torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) @ torch.randn(6, 6)
    whole, parts = FeatureMoments(), [FeatureMoments(), FeatureMoments(), FeatureMoments()]
    whole.update(features)
    for part, rows in zip(parts, (features[:1], features[1:170], features[170:]), strict=True):
        for batch in rows.split(64):
            part.update(batch)
    merged = FeatureMoments()
    for part in [*parts, FeatureMoments()]:
        merged.merge(part)
    assert merged.count == whole.count == 500
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(merged.cov, whole.cov, rtol=1e-9)
    np.testing.assert_allclose(whole.cov, np.cov(features.double().numpy(), rowvar=False), rtol=1e-9)


def test_merging_leaves_the_other_alone() -> None:
    a, b = FeatureMoments(), FeatureMoments()
    b.update(torch.randn(5, 2))
    a.merge(b)
    a.update(torch.randn(7, 2))
    assert (a.count, b.count) == (12, 5)


def test_too_few_samples_are_named(judge) -> None:
    metric = FrechetDistance(judge.reference("train"))
    metric.update(Observed(features=torch.randn(7, 4), labels=torch.zeros(7), predicted=torch.zeros(7)))
    with pytest.raises(UserError, match=r"frechet: found 7 samples, needed at least 8 \(twice the 4 features\)"):
        metric.compute()
