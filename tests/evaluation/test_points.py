"""Figures of points: closed cases of both distances, modes and their threshold, too few points."""

import math

import pytest
import torch

from unistep.errors import UserError
from unistep.evaluation.metrics.points import (
    Modes,
    energy_distance,
    high_quality_share,
    mean_distance,
    modes_covered,
    point_figures,
    sliced_wasserstein,
)

CORNERS = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
MODES = Modes(means=CORNERS, sd=0.1)


def normal(seed: int, *dims: int) -> torch.Tensor:
    return torch.randn(*dims, generator=torch.Generator().manual_seed(seed))


def test_energy_distance_of_two_single_points_is_twice_their_distance() -> None:
    assert energy_distance(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])) == pytest.approx(10)


def test_energy_distance_of_a_pair_and_its_middle() -> None:
    pair, middle = torch.tensor([[-1.0], [1.0]]), torch.tensor([[0.0]])
    assert energy_distance(pair, middle) == pytest.approx(2 * 1 - 1 - 0)  # 2 E|X-Y| - E|X-X'| - E|Y-Y'|


def test_energy_distance_of_shifted_normals_approaches_the_closed_form() -> None:
    x, y = normal(0, 3000, 1), normal(1, 3000, 1) + 2
    phi, density = 0.5 * (1 + math.erf(2 / 2)), math.exp(-1) / math.sqrt(2 * math.pi)  # of N(2, 2) at 0
    between = 2 * (2 * phi - 1) + 2 * math.sqrt(2) * density
    expected = 2 * between - 2 * (2 / math.sqrt(math.pi))
    assert energy_distance(x, y) == pytest.approx(expected, rel=0.05)


def test_equal_sets_are_at_distance_zero_and_chunks_change_nothing(monkeypatch) -> None:
    x, y = normal(0, 100, 2), normal(1, 70, 2)
    whole = mean_distance(x, y)
    monkeypatch.setattr("unistep.evaluation.metrics.points.CHUNK", 9)
    assert mean_distance(x, y) == pytest.approx(whole, rel=1e-12)
    assert energy_distance(x, x[torch.randperm(100)]) == pytest.approx(0, abs=1e-12)
    assert energy_distance(x, y) >= 0


def test_sliced_wasserstein_on_a_line_is_the_sorted_difference() -> None:
    x, y = torch.tensor([[0.0], [4.0]]), torch.tensor([[5.0], [2.0]])
    assert sliced_wasserstein(x, y) == pytest.approx((2 + 1) / 2)


def test_sliced_wasserstein_of_a_shift_is_the_mean_projection() -> None:
    x = normal(0, 200, 2)
    shifted = sliced_wasserstein(x, x + torch.tensor([3.0, 0.0]), num_directions=4000)
    assert shifted == pytest.approx(3 * 2 / math.pi, rel=0.03)  # E|cos| = 2 / pi
    with pytest.raises(UserError, match="sliced_wasserstein: found 100 samples, needed at least 200"):
        sliced_wasserstein(x, x[:100])


def test_modes_and_their_threshold() -> None:
    near = CORNERS.repeat(100, 1)  # 100 points in each of 4 modes
    assert modes_covered(near, MODES) == 4
    assert high_quality_share(near, MODES) == 1
    uneven = torch.cat([CORNERS[:1].repeat(352, 1), CORNERS[1:2].repeat(25, 1), CORNERS[2:3].repeat(23, 1)])
    assert modes_covered(uneven, MODES) == 2  # a quarter of the fair share of 400 / 4 is 25
    between = near + 0.41
    assert modes_covered(between, MODES) == 0
    assert high_quality_share(between, MODES) == 0


def test_all_figures_of_exact_samples() -> None:
    def draw(seed: int) -> torch.Tensor:
        return CORNERS[torch.arange(800) % 4] + 0.1 * normal(seed, 800, 2)

    found = point_figures(draw(0), draw(1), MODES)
    assert found["modes"] == 4
    assert found["high_quality"] > 0.99
    assert found["energy"] < 0.002
    assert set(point_figures(draw(0), draw(1), None)) == {"energy", "sliced_wasserstein"}
    with pytest.raises(UserError, match="points: found 50 samples, needed at least 100"):
        point_figures(draw(0)[:50], draw(1), MODES)
