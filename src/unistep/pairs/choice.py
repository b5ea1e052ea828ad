"""Choosing a solver: the cheapest whose endpoints stay near those of a fine reference, on a probe of seeds."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from unistep.diffusion.process.base import NoiseProcess
from unistep.diffusion.samplers import Heun, Sampler, build_sampler, missing_package
from unistep.errors import UserError
from unistep.pairs.solve import TileSolver
from unistep.teachers.teacher import Teacher

REFERENCE_STEPS = (32, 64, 128, 256)  # of Heun, tried in turn, and 16 to compare the first with
REFERENCE_SHARE = 1 / 4  # of the tolerance, that the reference may move by when its steps are halved


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A solver as it was tried.

    Attributes:
        solver: `Sampler.config()`.
        evaluations: of the network per sample, guidance included.
        error: see `relative_error`; infinity where an endpoint is not finite.
    """

    solver: dict[str, Any]
    evaluations: int
    error: float


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen, and against what.

    Attributes:
        chosen: the solver.
        reference: the reference, its error the one of its halved steps against it.
        tried: every candidate, in order.
        first_seed, seeds: the probe.
        spent: network evaluations that the choice took, reference included.
    """

    chosen: Candidate
    reference: Candidate
    tried: tuple[Candidate, ...]
    first_seed: int
    seeds: int
    spent: int

    @property
    def sampler(self) -> Sampler:
        """The chosen solver."""
        return build_sampler(**self.chosen.solver)


def relative_error(x: Tensor, reference: Tensor) -> float:
    """sqrt(sum_i |x_i - r_i|^2 / sum_i |r_i - r_mean|^2): root mean square, in units of the reference's spread.

    0 is exact; 1 is as wrong as to answer every seed with the mean; sqrt(2) are samples of other seeds. It has no unit
    and is the same whatever the data's scale and offset.

    Args:
        x: endpoints [n, *dims].
        reference: those of the same seeds.

    Returns:
        The error; infinity if any number is not finite.

    Raises:
        UserError: if the reference's endpoints are all the same, so that nothing can be told from them.
    """
    if not (x.isfinite().all() and reference.isfinite().all()):
        return math.inf
    spread = (reference - reference.mean(0)).square().sum()
    if spread == 0:
        raise UserError(
            f"pairs.solver: found the same endpoint for all {len(reference)} seeds, expected endpoints that differ; "
            "check the teacher, or name a solver"
        )
    return float(((x - reference).square().sum() / spread).sqrt())


class Probe:
    """Endpoints of the probe's seeds, and the network evaluations that they took.

    Args:
        teacher: the teacher; its denoiser is moved to `device`.
        guidance: guidance scale, 1 = off.
        seeds: of the probe.
        tile: rows solved at a time.
        device: where to solve.
    """

    def __init__(self, teacher: Teacher, guidance: float, seeds: range, tile: int, device: torch.device):
        self.teacher, self.guidance, self.seeds, self.tile, self.device = teacher, guidance, seeds, tile, device
        self.spent = 0

    def __call__(self, sampler: Sampler) -> tuple[Tensor, int]:
        """Endpoints float64 [n, *dims] on the CPU, and network evaluations per sample."""
        solver, parts, nfe = TileSolver(self.teacher, sampler, self.guidance, "float32", self.device), [], 0
        for seeds in torch.tensor(self.seeds).split(self.tile):
            x, nfe = solver.solved(seeds)
            parts.append(x.cpu().double())
            self.spent += nfe * len(seeds)
        return torch.cat(parts), nfe


def choose_solver(probe: Probe, *, tolerance: float, candidates: Sequence[str], evaluations: Sequence[int]) -> Choice:
    """The cheapest candidate in network evaluations whose error keeps to the tolerance, the nearest of equally cheap.

    Args:
        probe: teacher and seeds.
        tolerance: of `relative_error`.
        candidates: names of solvers.
        evaluations: of the denoiser per sample: about so many each candidate takes at most.

    Raises:
        UserError: for a reference that does not settle, or a tolerance that no candidate keeps to.
    """
    endpoints, reference = converged_reference(probe, tolerance)
    tried: list[Candidate] = []
    for _, equally_dear in groupby(trials(candidates, evaluations, probe.teacher.process), key=lambda s: s.nfe()):
        found = []
        for sampler in equally_dear:
            x, nfe = probe(sampler)
            found.append(Candidate(solver=sampler.config(), evaluations=nfe, error=relative_error(x, endpoints)))
        tried += found
        best = min(found, key=lambda trial: trial.error)
        if best.error <= tolerance:
            return Choice(
                chosen=best, reference=reference, tried=tuple(tried), first_seed=probe.seeds.start,
                seeds=len(probe.seeds), spent=probe.spent,
            )  # fmt: skip
    raise UserError(unreached(tried, tolerance))


def unreached(tried: Sequence[Candidate], tolerance: float) -> str:
    """What to say where no candidate keeps to the tolerance."""
    if not tried:
        return "pairs.solver.evaluations: found no number that a candidate can take, expected larger ones"
    near = min(tried, key=lambda trial: trial.error)
    return (
        f"pairs.solver.tolerance: found {tolerance:g}, expected one that a candidate keeps to: the nearest of "
        f"{len(tried)} is {in_words(near)}, error {near.error:.4g}; raise it, or allow more evaluations"
    )


def in_words(trial: Candidate) -> str:
    """`heun with 9 steps (17 evaluations)`."""
    return f"{trial.solver['name']} with {trial.solver['num_steps']} steps ({trial.evaluations} evaluations)"


def converged_reference(probe: Probe, tolerance: float) -> tuple[Tensor, Candidate]:
    """Heun's endpoints at the first number of steps whose halving moves them by less than a part of the tolerance.

    Heun is of second order: what is left of its own error is about a third of that.

    Raises:
        UserError: if none does.
    """
    steps = [n for n in REFERENCE_STEPS if has_grid(probe.teacher.process, n)]
    if not steps:
        raise UserError("pairs.solver: found a process of few timesteps, too few for a reference; name a solver")
    (coarse, _), tried = probe(Heun(steps[0] // 2)), list[Candidate]()
    for num_steps in steps:
        fine, nfe = probe(Heun(num_steps))
        tried.append(Candidate(solver=Heun(num_steps).config(), evaluations=nfe, error=relative_error(coarse, fine)))
        if tried[-1].error <= REFERENCE_SHARE * tolerance:
            return fine, tried[-1]
        coarse = fine
    finest = tried[-1]
    raise UserError(
        f"pairs.solver.tolerance: found {tolerance:g}, expected at least {finest.error / REFERENCE_SHARE:.2g}: the "
        f"reference, {in_words(finest)}, has not settled: its endpoints move by {finest.error:.2g} when its "
        "steps are halved; raise the tolerance, or name a solver"
    )


def trials(candidates: Sequence[str], evaluations: Sequence[int], process: NoiseProcess) -> list[Sampler]:
    """The solvers to try, cheapest first: of each candidate the most steps for each number of evaluations, once."""
    found: dict[tuple[str, int], Sampler] = {}
    for name in candidates:
        for most in evaluations:
            fitting = [n for n in range(1, most + 1) if build_sampler(name, n).nfe() <= most and has_grid(process, n)]
            if fitting:
                found[name, fitting[-1]] = build_sampler(name, fitting[-1])
    return sorted(found.values(), key=lambda sampler: sampler.nfe())


def compatible_solvers(process: NoiseProcess) -> Iterator[str]:
    """The candidates where none are named.

    UniPC asks for its package and for signal at the terminal time, and so does PNDM, whose weights are those of equal
    steps, as on a table of alpha-bar. Euler is deterministic DDIM.
    """
    yield from ("ddim", "dpmpp_2m", "heun")
    has_signal = float(process.alpha(process.sampling_times(1)[:1])) > 0
    if has_signal and not missing_package("unipc"):
        yield "unipc"
    if has_signal and process.config()["type"] == "discrete_vp":
        yield "pndm"


def has_grid(process: NoiseProcess, num_steps: int) -> bool:
    """Whether the process has a grid of so many steps; a table has no more steps than entries."""
    try:
        process.sampling_times(num_steps)
    except UserError:
        return False
    return True


def most_spent(tried: Sequence[Sampler], process: NoiseProcess) -> int:
    """Evaluations of the denoiser per seed that a choice takes if every reference and every candidate is needed."""
    references = [Heun(n) for n in (REFERENCE_STEPS[0] // 2, *REFERENCE_STEPS) if has_grid(process, n)]
    return sum(sampler.nfe() for sampler in (*references, *tried))
