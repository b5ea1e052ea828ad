"""From finished runs to the rows of a comparison: figures of every seed, and what the run itself measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unistep.comparison.budget import Plan
from unistep.comparison.shared import pair_minutes
from unistep.comparison.solver_rows import SolverRow
from unistep.evaluation import Evaluation, Row
from unistep.evaluation.comparison import ComparedRole, ComparedRow, Comparison
from unistep.recipes.comparison import Budget, CompareRecipe
from unistep.recipes.entries import Skipped
from unistep.recipes.schema import DistillRecipe
from unistep.reports.run_files import read_lines

NOTES = (
    "evaluations are those of pairs and training, a backward pass counted as one through a network and one more into "
    "its weights",
    "minutes are those of the pairs and of the training's steps",
)

ReferenceRole = Literal["floor", "teacher", "teacher_one_step"]
REFERENCE_ROLES: tuple[ReferenceRole, ...] = ("floor", "teacher", "teacher_one_step")


@dataclass(frozen=True)
class Finished:
    """An entry whose runs (seed -> folder and evaluation) are there.

    Attributes:
        name: of the entry.
        recipe: as planned.
        plan: what it did with its budget.
        runs: seed -> folder.
        evaluations: seed -> how the run was judged.
    """

    name: str
    recipe: DistillRecipe
    plan: Plan
    runs: Mapping[int, Path]
    evaluations: Mapping[int, Evaluation]

    @property
    def evaluation(self) -> Evaluation:
        """That of the first seed, whose reference rows stand for those of all."""
        return next(iter(self.evaluations.values()))


def reference_rows(entries: list[Finished]) -> list[ComparedRow]:
    """Floor, teacher and teacher at one step: once each, the teacher once for every guidance."""
    scales = dict.fromkeys(entry.recipe.teacher.guidance for entry in entries)
    found: dict[str, ComparedRow] = {}
    for role in REFERENCE_ROLES:
        for entry in entries:
            row = entry.evaluation.row(role)
            if row is not None:
                guidance = f", guidance {entry.recipe.teacher.guidance:g}"
                name = row.name + (guidance if role == "teacher" and len(scales) > 1 else "")
                found.setdefault(name, untrained(row, name, role))
    return list(found.values())


def untrained(row: Row, name: str, role: ComparedRole, group: str = "") -> ComparedRow:
    """A row that no seed of a training is behind."""
    latency = [] if row.timing is None else [row.timing.latency_ms]
    figures = {key: [value] for key, value in row.figures.items()}
    return ComparedRow(name=name, role=role, figures=figures, nfe=row.nfe, latency_ms=latency, group=group)


def solver_row(solver: SolverRow, evaluation: Evaluation) -> ComparedRow:
    """The teacher under a solver."""
    return untrained(evaluation.rows[0], solver.name, "solver", solver.group)


def entry_row(entry: Finished, folder: Path) -> ComparedRow:
    """An entry over its seeds; `folder` is the comparison's."""
    rows = [row for e in entry.evaluations.values() if (row := e.row("student")) is not None]
    keys = [key for key in rows[0].figures if all(key in row.figures for row in rows)]
    pairs = entry.recipe.pairs
    place = Path(pairs.path) if pairs is not None and pairs.path is not None else None
    made = pair_minutes(place, entry.plan.pair_rows)
    trained = [training_minutes(run) for run in entry.runs.values()]
    return ComparedRow(
        name=entry.name,
        role="entry",
        figures={key: [row.figures[key] for row in rows] for key in keys},
        nfe=rows[0].nfe,
        latency_ms=[row.timing.latency_ms for row in rows if row.timing is not None],
        steps=entry.plan.steps,
        evaluations=entry.plan.evaluations,
        minutes=[made + entry.plan.choice_seconds / 60 + minutes for minutes in trained] if made is not None else [],
        memory=entry.plan.memory,
        runs={str(seed): str(run.relative_to(folder)) for seed, run in entry.runs.items()},
        about=entry.recipe.about,
    )


def training_minutes(run: Path) -> float:
    """Minutes of a run's training steps, from its own log: each line says what a step took since the line before it."""
    minutes, last = 0.0, 0
    for line in read_lines(run / "metrics.jsonl", []):
        if "seconds_per_step" in line:
            minutes += (line["step"] - last) * line["seconds_per_step"] / 60
            last = line["step"]
    return minutes


def compared(
    recipe: CompareRecipe, folder: Path, entries: list[Finished], solvers: list[ComparedRow], missing: list[Skipped]
) -> Comparison:
    """Everything that the table, the figure and the page of a comparison show.

    Args:
        recipe: of the comparison.
        folder: its own.
        entries: with the runs that are there, at least one.
        solvers: rows of the teacher under solvers.
        missing: what has no row, or lacks a run.
    """
    first = entries[0].evaluation
    earlier = [entry.name for entry in entries if entry.recipe.generator.init is not None]
    uncounted = (f"{', '.join(earlier)}: what generator.init learnt before is not counted",) if earlier else ()
    return Comparison(
        name=recipe.name,
        about=recipe.about,
        kind=first.kind,
        distance=first.distance,
        budget=in_words(recipe.budget),
        rows=(*reference_rows(entries), *solvers, *(entry_row(entry, folder) for entry in entries)),
        missing={absent.name: absent.reason for absent in missing},
        notes=(*NOTES, *uncounted),
        teacher=first.teacher,
        judge=first.judge,
    )


def in_words(budget: Budget) -> str:
    """The budget of each entry."""
    if budget.minutes is not None:
        return f"{budget.minutes:g} minutes each, as planned from timed steps"
    return f"{budget.evaluations:,} network evaluations each"
