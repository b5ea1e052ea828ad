"""The teacher itself under solvers, as rows of a comparison: each judged once and kept."""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from unistep.diffusion.process.base import NoiseProcess
from unistep.diffusion.samplers import build_sampler, missing_package
from unistep.errors import UserError
from unistep.evaluation import Candidate, Evaluation, evaluate_models, evaluate_points
from unistep.evaluation.evaluate import Report, slug
from unistep.io.progress import show_stages
from unistep.recipes.comparison import SolverRows
from unistep.recipes.entries import Skipped
from unistep.recipes.schema import DistillRecipe
from unistep.recipes.sections import EvaluationConfig, SolverConfig
from unistep.run.console import Talk
from unistep.run.evaluate import NO_JUDGE
from unistep.run.evaluation_fingerprint import Judging
from unistep.run.evaluation_protocol import alignment_of, apply_protocol
from unistep.run.extractors import AnyJudge, point_reference
from unistep.run.sample_sources import SampleSource, solved_teacher, unsuited
from unistep.teachers.teacher import Teacher

TITLES = {
    "euler": "Euler", "heun": "Heun", "ddim": "DDIM", "dpmpp_2m": "DPM-Solver++", "pndm": "PNDM", "unipc": "UniPC",
    "consistency": "multistep consistency",
}  # fmt: skip


@dataclass(frozen=True)
class SolverRow:
    """One solver at one number of evaluations.

    Attributes:
        group: the solver's title, with its options.
        evaluations: of the denoiser, per sample.
        solver: how to build it.
    """

    group: str
    evaluations: int
    solver: SolverConfig

    @property
    def name(self) -> str:
        """Readable and unique."""
        return f"{self.group}, {self.evaluations}"


def solver_rows(solvers: tuple[SolverRows, ...]) -> Iterator[SolverRow]:
    """Every row that the recipe asks for.

    Raises:
        UserError: for a number of evaluations that a solver cannot take.
    """
    for index, wanted in enumerate(solvers):
        options = " ".join(f"{key} {value}" for key, value in wanted.options.items())
        for evaluations in wanted.evaluations:
            steps = steps_for(wanted, evaluations, f"solvers.{index}.evaluations")
            config = SolverConfig(name=wanted.name, num_steps=steps, options=wanted.options)
            yield SolverRow(" ".join(filter(None, (TITLES[wanted.name], options))), evaluations, config)


def steps_for(wanted: SolverRows, evaluations: int, place: str) -> int:
    """The number of steps that takes this many evaluations: as many for most, (n + 1) / 2 for Heun.

    Raises:
        UserError: if there is none.
    """
    each, refused = dict[int, int](), None
    for n in range(1, max(evaluations, 1) + 1):
        try:
            each[build_sampler(wanted.name, n, **wanted.options).nfe()] = n
        except UserError as error:  # options may fit one number of steps only
            refused = error
    if not each and refused is not None:
        raise UserError(f"{place}: {refused}") from refused
    if evaluations not in each:
        near = sorted(each, key=lambda nfe: abs(nfe - evaluations))[:2]
        raise UserError(
            f"{place}: found {evaluations}, expected a number that {wanted.name} can take, such as "
            f"{' or '.join(map(str, sorted(near)))}"
        )
    return each[evaluations]


def result_file(row: SolverRow, recipe: DistillRecipe, judging: Judging, folder: Path) -> Path:
    """Where a row's evaluation is kept: another name for other settings, another teacher, judge or reference."""
    facts = [row.solver.model_dump(), recipe.teacher.guidance, judged_by(recipe.evaluation), asdict(judging)]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    return folder / f"{slug(row.name)}-{key}.json"


def judge_solver(
    row: SolverRow, recipe: DistillRecipe, teacher: Teacher, judge: AnyJudge | None, folder: Path, device: torch.device,
    say: Talk,
) -> Evaluation:  # fmt: skip
    """The evaluation of one row, from its file in `folder` where it was judged before."""
    file = result_file(row, recipe, Judging.of(recipe, teacher, judge), folder)
    if not file.is_file():
        say(f"judging {recipe.evaluation.samples:,} samples: {row.name}")
        teacher = apply_protocol(recipe, teacher, device)
        draws, nfe = solved_teacher(teacher, row.solver, recipe.teacher.guidance, device)
        file.parent.mkdir(parents=True, exist_ok=True)
        with show_stages(say.shows) as progress:
            finite(judged(row.name, draws, nfe, recipe.evaluation, teacher, judge, progress)).save(file)
    return Evaluation.load(file)


def judged_by(evaluation: EvaluationConfig) -> dict[str, object]:
    """What of the evaluation's settings a solver's figures depend on."""
    return evaluation.model_dump(mode="json", exclude={"solver", "beside", "samples_during_training", "batch"})


def judged(
    name: str,
    draws: SampleSource,
    nfe: int,
    config: EvaluationConfig,
    teacher: Teacher,
    judge: AnyJudge | None,
    on_progress: Report = lambda name, done, wanted: None,
) -> Evaluation:
    """One candidate judged as the runs judge theirs."""
    latency = draws.batch if config.timed else None
    candidate = Candidate(name=name, sample=draws, nfe=nfe, latency=latency, device=draws.device)
    if judge is not None:
        return evaluate_models(
            [candidate], judge, num_samples=config.samples, first_seed=config.first_seed, batch=config.batch,
            with_floor=False, alignment=alignment_of(config, teacher, draws.device), teacher=teacher.sha256,
            on_progress=on_progress,
        )  # fmt: skip
    reference = point_reference(teacher, config.samples)
    if reference is None:
        raise UserError(NO_JUDGE)
    return evaluate_points(
        [candidate], reference.real, None, reference.modes, config.samples, config.first_seed, teacher=teacher.sha256
    )


def finite(result: Evaluation) -> Evaluation:
    """Without the figures of a solver that has diverged so far that there are none."""

    def kept(figures: dict[str, float]) -> dict[str, float]:
        return {name: value for name, value in figures.items() if math.isfinite(value)}

    return replace(result, rows=tuple(replace(row, figures=kept(dict(row.figures))) for row in result.rows))


def unavailable(row: SolverRow, process: NoiseProcess) -> Skipped | None:
    """Why a row has to be left out: its solver is not installed, or does not suit the process."""
    reason = missing_package(row.solver.name) or unsuited(row.solver, process)
    return None if reason is None else Skipped(row.name, reason)
