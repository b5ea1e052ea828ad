"""The choice of a solver, held against teachers whose ODE is known: its error, its price, and what it refuses."""

import math
from functools import cache
from itertools import pairwise
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from unistep.costing.step_cost import counted
from unistep.diffusion.process import ContinuousVPProcess, DiscreteVPProcess, EDMProcess, FlowProcess, NoiseProcess
from unistep.diffusion.samplers import build_sampler, seeded_normal
from unistep.errors import UserError
from unistep.pairs.choice import (
    Choice,
    Probe,
    choose_solver,
    compatible_solvers,
    has_grid,
    most_spent,
    relative_error,
    trials,
)
from unistep.teachers import load_teacher
from unistep.teachers.analytic import GaussianMixture, teacher_from_mixture
from unistep.teachers.teacher import Teacher
from unistep.types import Cond

CPU = torch.device("cpu")
NAMES = ("ddim", "dpmpp_2m", "heun")
EVALUATIONS = (4, 6, 8, 10, 15, 20, 30, 40)
SEEDS = range(16)
PROCESSES = (EDMProcess(), FlowProcess(), ContinuousVPProcess(), DiscreteVPProcess.linear())


def probe(teacher: Teacher, guidance: float = 1.0, tile: int = 16) -> Probe:
    return Probe(teacher, guidance, SEEDS, tile, CPU)


def choose(teacher: Teacher, tolerance: float, names: tuple[str, ...] = NAMES, tile: int = 16) -> Choice:
    return choose_solver(probe(teacher, tile=tile), tolerance=tolerance, candidates=names, evaluations=EVALUATIONS)


def ring(process: NoiseProcess) -> Teacher:
    return teacher_from_mixture(GaussianMixture.ring(process), "ring")


@cache
def chosen(process: NoiseProcess, tolerance: float) -> Choice:
    return choose(ring(process), tolerance)


def solved(teacher: Teacher, name: str, steps: int) -> Tensor:
    z = seeded_normal(torch.tensor(SEEDS), teacher.shape)
    return build_sampler(name, steps)(teacher.denoiser, teacher.process, z).x.double()


def root_mean_square(x: Tensor, r: Tensor) -> float:
    """The error by its definition, number by number."""
    mean = [sum(float(row[k]) for row in r) / len(r) for k in range(r.shape[1])]
    off = sum((float(a) - float(b)) ** 2 for x_i, r_i in zip(x, r, strict=True) for a, b in zip(x_i, r_i, strict=True))
    spread = sum((float(b) - mean[k]) ** 2 for r_i in r for k, b in enumerate(r_i))
    return math.sqrt(off / spread)


def test_the_error_has_no_unit_and_knows_three_values() -> None:
    r = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = r + 0.1 * torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert relative_error(x, r) == pytest.approx(root_mean_square(x, r), rel=1e-12)
    assert relative_error(7 * x - 3, 7 * r - 3) == pytest.approx(relative_error(x, r), rel=1e-9)
    assert relative_error(r, r) == 0
    assert relative_error(r.mean(0).expand_as(r), r) == pytest.approx(1)
    assert relative_error(torch.where(r > 2, math.nan, r), r) == math.inf


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.config()["type"])
def test_the_chosen_solver_is_as_near_as_it_says_and_nothing_cheaper_is(process: NoiseProcess) -> None:
    teacher, tolerance = ring(process), 0.05
    found = chosen(process, tolerance)
    fine = solved(teacher, "heun", 250)
    again = solved(teacher, found.chosen.solver["name"], found.chosen.solver["num_steps"])
    assert root_mean_square(again, fine) == pytest.approx(found.chosen.error, abs=found.reference.error)
    assert found.chosen.error <= tolerance and found.reference.error <= tolerance / 4
    assert all(trial.error > tolerance for trial in found.tried if trial.evaluations < found.chosen.evaluations)
    assert all(
        trial.error >= found.chosen.error for trial in found.tried if trial.evaluations == found.chosen.evaluations
    )
    assert found.sampler.nfe() == found.chosen.evaluations


def test_against_the_exact_solution_of_one_gaussian() -> None:
    mean, std = torch.tensor([[0.3, -1.0]]), 0.4
    teacher = teacher_from_mixture(GaussianMixture(mean, std, EDMProcess()), "one gaussian")
    found = choose(teacher, 0.02)
    x_T = 80 * seeded_normal(torch.tensor(SEEDS), (2,)).double()
    exact = mean + (x_T - mean) * std / math.hypot(std, 80)  # dx/dsigma = sigma (x - m) / (s^2 + sigma^2), integrated
    again = solved(teacher, found.chosen.solver["name"], found.chosen.solver["num_steps"])
    assert root_mean_square(again, exact) <= 0.02 + found.reference.error


@pytest.mark.parametrize("process", PROCESSES[:2], ids=lambda p: p.config()["type"])
def test_a_looser_tolerance_is_never_dearer(process: NoiseProcess) -> None:
    found = [chosen(process, tolerance) for tolerance in (0.3, 0.05, 0.02)]
    assert all(a.chosen.evaluations <= b.chosen.evaluations for a, b in pairwise(found))
    assert found[0].chosen.evaluations < found[-1].chosen.evaluations


def test_the_choice_is_the_same_again_and_in_other_tiles() -> None:
    first = chosen(EDMProcess(), 0.05)
    assert choose(ring(EDMProcess()), 0.05) == first
    tiled = choose(ring(EDMProcess()), 0.05, tile=7)
    assert (tiled.chosen.solver, tiled.spent) == (first.chosen.solver, first.spent)


def test_every_evaluation_is_counted_and_guidance_doubles_them(tiny: ModuleType) -> None:
    teacher = tiny.tiny_teacher()
    spent = []
    for guidance in (1.0, 3.0):
        asked = probe(teacher, guidance)
        with counted([teacher.denoiser]) as tally:
            found = choose_solver(asked, tolerance=0.1, candidates=NAMES, evaluations=EVALUATIONS)
        assert tally.evaluations == found.spent
        each = 1 if guidance == 1 else 2
        assert found.chosen.evaluations == each * found.sampler.nfe()
        spent.append(found.spent)
        most = most_spent(trials(NAMES, EVALUATIONS, teacher.process), teacher.process)
        assert found.spent <= each * len(SEEDS) * most


def test_each_candidate_takes_at_most_the_evaluations_and_cheap_ones_come_first() -> None:
    tried = [(s.name, s.nfe()) for s in trials(("heun", "ddim"), (4, 5, 6), EDMProcess())]
    assert tried == [("heun", 3), ("ddim", 4), ("heun", 5), ("ddim", 5), ("ddim", 6)]


def test_a_table_is_never_walked_in_more_steps_than_it_has() -> None:
    short = DiscreteVPProcess(DiscreteVPProcess.linear().alphas_cumprod[::100])
    assert has_grid(short, 10) and not has_grid(short, 11)
    assert max(sampler.num_steps for sampler in trials(NAMES, EVALUATIONS, short)) == 10
    with pytest.raises(UserError, match="too few for a reference"):
        choose(ring(short), 0.05)


def test_candidates_follow_from_process_and_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unistep.diffusion.samplers.build.find_spec", lambda _: object())
    assert [*compatible_solvers(EDMProcess())] == [*NAMES, "unipc"]
    assert [*compatible_solvers(FlowProcess())] == [*NAMES]
    assert [*compatible_solvers(DiscreteVPProcess.linear())] == [*NAMES, "unipc", "pndm"]
    monkeypatch.setattr("unistep.diffusion.samplers.build.find_spec", lambda _: None)
    assert [*compatible_solvers(EDMProcess())] == [*NAMES]


class Wild(nn.Module):
    """A network that answers with noise of its own: its ODE has no smooth solution."""

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond = None) -> Tensor:
        return (1e4 * x_t).sin()


class Deaf(nn.Module):
    """A network that answers the same, whatever it is asked."""

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond = None) -> Tensor:
        return torch.full_like(x_t, 0.5)


@pytest.mark.parametrize(
    ("network", "tolerance", "words"),
    [
        (None, 0.001, r"^pairs.solver.tolerance: found 0.001, expected one that a candidate keeps to: the nearest of "),
        (
            Wild(),
            0.05,
            r"^pairs.solver.tolerance: found 0.05, expected at least .*: the reference, heun with 256 steps",
        ),
        (Deaf(), 0.05, r"^pairs.solver: found the same endpoint for all 16 seeds"),
    ],
    ids=["unreachable", "unsettled", "constant"],
)
def test_refusals_are_one_line(network: nn.Module | None, tolerance: float, words: str, tiny: ModuleType) -> None:
    teacher = tiny.tiny_teacher(conditional=False, denoiser=network) if network else ring(EDMProcess())
    with pytest.raises(UserError, match=words) as raised:
        choose(teacher, tolerance, ("ddim",))
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_unipc_competes_where_it_is_installed() -> None:
    pytest.importorskip("diffusers")
    teacher = load_teacher("gaussians:ring8")
    found = choose(teacher, 0.02, (*NAMES, "unipc"))
    assert found.chosen.evaluations <= choose(teacher, 0.02).chosen.evaluations
