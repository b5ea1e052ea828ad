"""Rehearsing a training: what is counted, what is left alone, how far it goes."""

import math
from collections.abc import Callable

import pytest
import torch
from tiny_plan import CPU, settings, tiny_dmd, tiny_streams, tiny_teacher

from unistep.costing.benchmark import Benchmark
from unistep.costing.line import Line
from unistep.costing.measure import rehearse_training
from unistep.costing.profile import Training, profile_steps, shares
from unistep.training import TrainingConfig


class Ticking:
    """A clock on which everything takes a second, and a memory that holds what it is told."""

    def __init__(self) -> None:
        self.ticks, self.held = 0, 100

    def __call__(self) -> float:
        self.ticks += 1
        return self.ticks

    def start(self) -> int:
        return self.held

    def now(self) -> int:
        return self.held

    def peak(self) -> int:
        return self.held

    def available(self) -> int:
        return 10**9


def stand(seconds: float = math.inf, memory: float = math.inf) -> Benchmark:
    ticking = Ticking()
    return Benchmark(CPU, ticking, seconds, memory, ticking)


def training(config: TrainingConfig, guidance: float = 1.0, **changes: object) -> Training:
    teacher = tiny_teacher()
    method = tiny_dmd(teacher, guidance, **changes)
    return Training(method=method, batches=lambda c: tiny_streams(c, teacher), config=config, asked=[teacher.denoiser])


@pytest.mark.parametrize(("guidance", "asked"), [(1.0, 1), (3.0, 2)])
def test_evaluations_of_a_step_are_those_of_algorithm_1(guidance: float, asked: int) -> None:
    b, p = 16, 8
    found = profile_steps(training(settings(batch=b, pair_batch=p), guidance), 0, stand())
    generator_phase = 3 * b + 3 * p + asked * b + b  # G(z), G(z_ref) forth and back into weights; mu_base, mu_fake
    assert [round(costs.evaluations.at(1)) for costs in found] == [generator_phase + 3 * b]


def test_more_updates_of_the_fake_score_draw_samples_of_their_own() -> None:
    b = 16
    found = profile_steps(training(settings(batch=b), fake_score_updates_per_step=3, lambda_reg=0), 0, stand())
    assert round(found[0].evaluations.at(1)) == (3 + 1 + 1) * b + 3 * b + 2 * (1 + 3) * b


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_shares_end_with_the_recipes_own_batch(accumulate: int) -> None:
    config = settings(batch=48, pair_batch=24, accumulate=accumulate)
    listed = list(shares(config))
    assert [c.batch for _, c in listed][-1] == 48 and [c.pair_batch for _, c in listed][-1] == 24
    assert listed[0][1].batch == accumulate
    for share, changed in listed:
        assert share == changed.batch / 48
        assert changed.batch % accumulate == changed.pair_batch % accumulate == 0


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    profile_steps(training(settings()), 0, stand())
    assert torch.equal(torch.get_rng_state(), before)


def sizes_tried(at: Benchmark) -> list[int]:
    tried = list[int]()
    job = training(settings(batch=64))

    def batches(config: TrainingConfig) -> object:
        tried.append(config.batch)
        return job.batches(config)

    profile_steps(Training(method=job.method, batches=batches, config=job.config), 0, at)  # type: ignore[arg-type]
    return sorted(set(tried))


def test_larger_batches_are_tried_as_long_as_there_is_time() -> None:
    assert sizes_tried(stand()) == [1, 2, 8, 16, 32, 64]
    assert sizes_tried(stand(seconds=0)) == [1, 2]


def test_and_as_long_as_there_is_memory() -> None:
    assert sizes_tried(stand(memory=350)) == [1, 2]  # which holds 100 bytes here, so that eight would hold 400


def test_networks_that_leave_no_room_are_not_built() -> None:
    teacher, built = tiny_teacher(), list[str]()

    def build(device: torch.device) -> object:
        built.append(device.type)
        return tiny_dmd(teacher)

    costs, _ = rehearse_training(
        build, lambda c: tiny_streams(c, teacher), settings(), stand(memory=2000), lambda: built.append("said"),
        {"teacher": teacher.denoiser},
    )  # type: ignore[arg-type]  # fmt: skip
    assert built == ["meta"] and not costs.steps
    assert {network.name: network.learns for network in costs.networks} == {
        "teacher": False, "generator": True, "fake_score": True,
    }  # fmt: skip


def test_a_line_goes_through_points_on_a_line() -> None:
    line = Line.through({x: 2 + 3 * x for x in (1.0, 2.0, 5.0, 9.0)})
    assert (line.fixed, line.slope) == (pytest.approx(2), pytest.approx(3))


@pytest.mark.parametrize(
    ("points", "holds"),
    [
        ({4.0: 8.0}, lambda line: line == Line(0, 2)),
        ({1.0: 3.0, 2.0: 1.0}, lambda line: line.slope == 0 and 1 < line.fixed < 3),
        ({1.0: 1.0, 2.0: 4.0}, lambda line: line.fixed == 0 and 1 < line.slope < 2),
    ],
)
def test_a_line_neither_falls_nor_begins_below_zero(points: dict[float, float], holds: Callable[[Line], bool]) -> None:
    assert holds(Line.through(points))
