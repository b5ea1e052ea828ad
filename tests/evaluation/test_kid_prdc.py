"""Kernel distance and the neighbour figures: by hand, unbiased, mergeable, refused when too few."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from unistep.errors import UserError
from unistep.evaluation import Observed
from unistep.evaluation.metrics.kid import KernelDistance, squared_mmd
from unistep.evaluation.metrics.prdc import NeighbourMetrics, neighbour_radii, precision_recall_density_coverage


def normal(seed: int, *dims: int) -> torch.Tensor:
    return torch.randn(*dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seen(features: torch.Tensor) -> Observed:
    none = torch.full((len(features),), -1)
    return Observed(features=features, labels=none, predicted=none)


def test_neighbours_of_features_far_from_the_origin_are_those_of_exact_distances() -> None:
    """As a judge gives them: float32, large values with a small spread."""
    real, fake = ((3 + 0.05 * normal(seed, 600, 64)).float() for seed in (0, 1))

    def apart(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.stack([(row - b.double()).square().sum(1).sqrt() for row in a.double()])

    radii = apart(real, real).kthvalue(6).values
    torch.testing.assert_close(neighbour_radii(real, 5), radii, rtol=1e-9, atol=0)
    inside = apart(real, fake) <= radii[:, None]
    found = precision_recall_density_coverage(real, fake)
    assert found["density"] == pytest.approx(float(inside.double().sum(0).mean() / 5), abs=1e-12)
    assert found["precision"] == float(inside.any(0).double().mean())
    assert found["coverage"] == float(inside.any(1).double().mean())


def test_mmd_is_the_sum_over_pairs() -> None:
    x, y = normal(0, 4, 3), normal(1, 5, 3)
    k = lambda a, b: (float(a @ b) / 3 + 1) ** 3  # noqa: E731
    expected = sum(k(a, b) for a, b in itertools.permutations(x, 2)) / 12
    expected += sum(k(a, b) for a, b in itertools.permutations(y, 2)) / 20
    expected -= 2 * sum(k(a, b) for a in x for b in y) / 20
    assert squared_mmd(x, y) == pytest.approx(expected)


def test_mmd_of_one_distribution_is_unbiased_around_zero() -> None:
    values = torch.tensor([squared_mmd(normal(2 * i, 50, 4), normal(2 * i + 1, 50, 4)) for i in range(200)])
    error = float(values.std()) / 200**0.5
    assert abs(float(values.mean())) < 3 * error
    assert (values < 0).any() and (values > 0).any()


def test_kid_sees_a_shift_and_depends_on_its_seed_only() -> None:
    reference = SimpleNamespace(features=normal(0, 400, 4))
    same, far, again = (KernelDistance(reference, subset=100, num_subsets=20, seed=s) for s in (0, 0, 0))
    same.update(seen(normal(1, 400, 4)))
    far.update(seen(normal(1, 400, 4) + 1))
    again.update(seen(normal(1, 400, 4)[:150]))
    rest = KernelDistance(reference, subset=100, num_subsets=20)
    rest.update(seen(normal(1, 400, 4)[150:]))
    again.merge(rest)
    assert abs(same.compute()["kid"]) < 0.1 < 1 < far.compute()["kid"]
    assert again.compute() == same.compute()
    assert same.settings() == {"subset": 100, "num_subsets": 20, "seed": 0}


def test_kid_refuses_fewer_than_a_subset() -> None:
    metric = KernelDistance(SimpleNamespace(features=normal(0, 100, 2)), subset=100)
    metric.update(seen(normal(1, 99, 2)))
    with pytest.raises(UserError, match="kid: found 99 samples, needed at least 100"):
        metric.compute()
    short = KernelDistance(SimpleNamespace(features=normal(0, 10, 2)), subset=50)
    short.update(seen(normal(1, 99, 2)))
    with pytest.raises(UserError, match="kid, reference: found 10 samples, needed at least 50"):
        short.compute()


def test_radii_by_hand() -> None:
    line = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert neighbour_radii(line, 1).tolist() == [1, 1, 2, 4]
    assert neighbour_radii(line, 2).tolist() == [3, 2, 3, 6]


def test_figures_by_hand() -> None:
    real = torch.tensor([[0.0], [1.0], [2.0], [10.0]])  # radii 1, 1, 1, 8 with k = 1
    fake = torch.tensor([[0.5], [0.6], [40.0], [50.0]])  # radii 0.1, 0.1, 10, 10
    found = precision_recall_density_coverage(real, fake, k=1)
    assert found["precision"] == pytest.approx(2 / 4)  # 0.5 and 0.6 lie among reals
    assert found["recall"] == 0  # no real lies within 0.1 of a fake or within 10 of 40
    assert found["density"] == pytest.approx((2 + 2) / 4)  # in the balls of 0 and 1
    assert found["coverage"] == pytest.approx(2 / 4)


def test_equal_sets_are_perfect_and_far_sets_are_not() -> None:
    x = normal(0, 60, 3)
    same = precision_recall_density_coverage(x, x.clone(), k=5)
    assert (same["precision"], same["recall"], same["coverage"]) == (1, 1, 1)
    assert same["density"] >= 1
    assert set(precision_recall_density_coverage(x, x + 1000, k=5).values()) == {0.0}


def test_a_collapsed_generator_keeps_precision_and_loses_recall() -> None:
    real = normal(0, 300, 3)
    found = precision_recall_density_coverage(real, 0.01 * normal(1, 300, 3))
    assert found["precision"] == 1
    assert found["recall"] < 0.05
    assert found["coverage"] < 0.3


def test_chunks_change_nothing(monkeypatch) -> None:
    real, fake = normal(0, 50, 3), normal(1, 40, 3)
    whole = precision_recall_density_coverage(real, fake)
    monkeypatch.setattr("unistep.evaluation.metrics.prdc.CHUNK", 7)
    assert precision_recall_density_coverage(real, fake) == whole


def test_equal_counts_are_compared_and_too_few_refused() -> None:
    reference = SimpleNamespace(features=normal(0, 80, 3))
    a, b = NeighbourMetrics(reference, needed=50), NeighbourMetrics(reference, needed=50)
    a.update(seen(normal(1, 30, 3)))
    b.update(seen(normal(2, 30, 3)))
    with pytest.raises(UserError, match="prdc: found 30 samples, needed at least 50"):
        a.compute()
    a.merge(b)
    fake = torch.cat([normal(1, 30, 3), normal(2, 30, 3)])
    assert a.compute() == precision_recall_density_coverage(reference.features[:60], fake)
    assert NeighbourMetrics(reference).needed == 1000
