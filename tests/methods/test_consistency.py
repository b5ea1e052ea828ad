"""Consistency: the boundary condition, the exact solution has no loss, and the schedules are the papers'."""

import math
from typing import Any

import pytest
import torch
from fixed_random import FixedRandom
from small import PROCESSES, full_batch, made_of, names
from torch import Tensor, nn

from unistep.diffusion.process import EDMProcess
from unistep.diffusion.process.base import NoiseProcess
from unistep.diffusion.process.noising import data_time
from unistep.losses.regression import l2
from unistep.methods import Batch
from unistep.methods.consistency import (
    Consistency,
    ConsistencyDistillationConfig,
    ConsistencyTrainingConfig,
    neighbours,
)
from unistep.teachers.analytic import GaussianMixture


def distillation(process: NoiseProcess = PROCESSES[0], **settings: Any) -> Consistency:
    config = ConsistencyDistillationConfig(name="consistency_distillation", regression="l2", **settings)
    return config.build(made_of(process))


def training(**settings: Any) -> ConsistencyTrainingConfig:
    return ConsistencyTrainingConfig(name="consistency_training", regression="l2", **settings)


@pytest.mark.parametrize("process", PROCESSES, ids=names)
def test_the_boundary_condition(process: NoiseProcess) -> None:
    c_skip, c_out, *_ = made_of(process).copy().coefficients(torch.tensor([data_time(process)]))  # type: ignore[operator]
    assert (float(c_skip), float(c_out)) == (1, 0)


@pytest.mark.parametrize("process", PROCESSES, ids=names)
def test_at_data_the_goal_is_the_point_itself_whatever_the_network(process: NoiseProcess) -> None:
    method = distillation(process, levels=2)  # one interval, which ends at data
    points = method.schedule.points(torch.randn(5, 2), None, FixedRandom(), 0)
    assert bool((process.sigma(points.s) == 0).all())
    assert torch.equal(method.evaluate_target(points, None), points.x_s)
    expected = made_of(process).teacher(points.x_t, points.t)  # one Euler step to data is the teacher's answer
    torch.testing.assert_close(points.x_s, expected, rtol=1e-4, atol=1e-4)


class Exact(nn.Module):
    """The consistency function of data N(0, s^2) in EDM's process: x_t shrunk as the ODE shrinks it."""

    def __init__(self, s: float):
        super().__init__()
        self.s = s

    def forward(self, x: Tensor, cond: None, t: Tensor) -> Tensor:
        return x * (self.s / (self.s**2 + t**2).sqrt())[:, None]


def losses_of_the_exact_function(levels: int) -> float:
    method = distillation(levels=levels)
    method.schedule.mu_base = GaussianMixture(torch.zeros(1, 2), 0.7, PROCESSES[0])  # type: ignore[attr-defined]
    method.generator = method.target = Exact(0.7)
    x = 0.7 * torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    (phase,) = method.phases(0)
    return float(phase.loss(Batch(size=4000, real=x), FixedRandom()).total())


def test_the_exact_function_has_no_loss_but_the_solvers_error() -> None:
    coarse, fine = (losses_of_the_exact_function(levels) for levels in (9, 33))
    assert coarse < 1e-2
    assert fine < coarse / 4**4  # squared error of a step of a third-order method, at a quarter of the step, or better
    wrong = distillation(levels=33)
    wrong.generator = wrong.target = Exact(0.2)
    (phase,) = wrong.phases(0)
    assert float(phase.loss(Batch(size=4000, real=torch.randn(4000, 2)), FixedRandom()).total()) > 100 * fine


@pytest.mark.parametrize("process", PROCESSES, ids=names)
def test_neighbours_are_next_to_each_other_from_the_terminal_time_to_data(process: NoiseProcess) -> None:
    t, s = neighbours(process, 6, torch.zeros(500, 2), FixedRandom())
    grid = process.sampling_times(5).float()
    assert set(t.tolist()) == set(grid[:-1].tolist())
    assert set(s.tolist()) == set(grid[1:].tolist())
    assert all(float(s[t == a].unique()) == b for a, b in zip(grid[:-1], grid[1:], strict=True))


def test_the_default_grid_is_the_papers_eighteen_levels_and_data() -> None:
    process, config = EDMProcess(), ConsistencyDistillationConfig(name="consistency_distillation")
    t, s = neighbours(process, config.levels, torch.zeros(2000, 2), FixedRandom())
    rho, low, high = 7, 0.002, 80.0
    karras = [(low ** (1 / rho) + i / 17 * (high ** (1 / rho) - low ** (1 / rho))) ** rho for i in range(18)]
    torch.testing.assert_close(t.unique(), torch.tensor(karras))
    torch.testing.assert_close(s.unique(), torch.tensor([0.0, *karras[:-1]]))


def test_gradients_stop_at_the_goal() -> None:
    method = distillation()
    (phase,) = method.phases(0)
    goal = method.evaluate_target(method.schedule.points(torch.randn(5, 2), None, FixedRandom(), 0), None)
    assert not goal.requires_grad
    assert phase.loss(full_batch(), FixedRandom()).terms["consistency"].requires_grad


def test_training_noises_both_points_by_the_same_noise() -> None:
    method = training().build(made_of(PROCESSES[3]))
    x = torch.randn(50, 2)
    points = method.schedule.points(x, None, FixedRandom(), 30)
    t, s = points.t[:, None], points.s[:, None]
    eps = (points.x_t - (1 - t) * x) / t
    torch.testing.assert_close(points.x_s, (1 - s) * x + s * eps)


def test_the_papers_schedule_of_levels_and_averages() -> None:
    config = training(first_levels=2, last_levels=150, target_decay=0.9)
    found = [config.levels_at(k, 800_000) for k in (0, 1, 200_000, 400_000, 800_000)]
    expected = [math.ceil(math.sqrt(k / 8e5 * (151**2 - 4) + 4) - 1) + 1 for k in (0, 1, 2e5, 4e5, 8e5)]
    assert found == expected
    assert (found[0], found[-1]) == (2, 151)
    assert config.decay_at(0, 100) == pytest.approx(0.9)
    assert config.decay_at(100, 100) == pytest.approx(math.exp(2 * math.log(0.9) / 151))
    assert training(target_decay=0).decay_at(50, 100) == 0


@pytest.mark.parametrize(
    ("step", "noisy"), [(0, [0.002, 80.0]), (1, [0.002, 2.515, 80.0]), (2, [0.002, 0.4695, 9.723, 80.0])]
)
def test_song_counts_the_noisy_levels_of_the_grid_as_the_paper_does(step: int, noisy: list[float]) -> None:
    """N = 2, 3 and 4 of EDM's grid: data is one level more, not one of them."""
    config = training(first_levels=2, last_levels=4)
    step = {N: k for k in reversed(range(40)) for N in [config.levels_at(k, 40)]}[step + 2]
    method = config.build(made_of(EDMProcess()))
    points = method.schedule.points(torch.zeros(400, 2), None, FixedRandom(), step)
    torch.testing.assert_close(points.t.unique(), torch.tensor(noisy), rtol=2e-3, atol=0)
    torch.testing.assert_close(points.s.unique(), torch.tensor([0.0, *noisy[:-1]]), rtol=2e-3, atol=0)


def test_the_average_of_a_training_follows_as_its_schedule_says() -> None:
    config = training(last_levels=9)
    method = config.build(made_of())
    for step in (0, 20, 39):
        before = [p.clone() for p in method.target.parameters()]
        with torch.no_grad():
            for p in method.generator.parameters():
                p.add_(1)
        method.after_step(step)
        mu = config.decay_at(step, 40)
        for p, old, new in zip(method.target.parameters(), before, method.generator.parameters(), strict=True):
            torch.testing.assert_close(p, mu * old + (1 - mu) * new)


def test_ects_ratio_starts_near_a_half_and_closes_in() -> None:
    config, t = training(schedule="ect"), torch.tensor([0.01, 1.0, 80.0])
    first = config.nearer(t, 0, 800)
    torch.testing.assert_close(first[2], torch.tensor(80 * (1 - 1 / 2)))
    assert float(first[0]) == 0  # n(0) = 1 + k / 2 = 5: below data, so data it is
    later = [config.nearer(t, step, 800) / t for step in range(0, 800, 100)]
    assert all(bool((b >= a).all()) for a, b in zip(later, later[1:], strict=False))
    torch.testing.assert_close(later[-1], 1 - (1 + 8 * torch.sigmoid(-t)) / 2**8)
    assert torch.equal(config.nearer(t, 99, 800), first)


def test_ects_weight_is_one_over_the_gap() -> None:
    method = training(schedule="ect").build(made_of())
    points = method.schedule.points(torch.randn(50, 2), None, FixedRandom(), 20)
    torch.testing.assert_close(points.weight, 1 / (points.t - points.s))
    assert bool((points.t >= 0.02 - 1e-6).all() and (points.t <= 10).all())
    assert not method.auxiliary_networks
    batch, rng = Batch(size=50, real=torch.randn(50, 2)), FixedRandom(4)
    assert batch.real is not None
    points = method.schedule.points(batch.real, None, FixedRandom(4), 20)
    expected = points.weight * l2(method.generator(points.x_t, None, points.t), method.evaluate_target(points, None))
    found = method.phases(20)[0].loss(batch, rng).terms["consistency"]
    torch.testing.assert_close(found, expected)


def test_the_target_is_the_average_of_the_network() -> None:
    method = distillation(target_decay=0.75)
    before = {name: p.clone() for name, p in method.target.named_parameters()}
    with torch.no_grad():
        for p in method.generator.parameters():
            p.add_(1)
    method.after_step(0)
    for name, p in method.target.named_parameters():
        torch.testing.assert_close(p, before[name] + 0.25)
    assert method.auxiliary_networks == {"target": method.target}
    points = method.schedule.points(torch.randn(50, 2), None, FixedRandom(), 0)
    noisy = points.s > 0
    expected = method.target(points.x_s, None, points.s)
    torch.testing.assert_close(method.evaluate_target(points, None)[noisy], expected[noisy])  # not the network's
    assert not distillation().auxiliary_networks
