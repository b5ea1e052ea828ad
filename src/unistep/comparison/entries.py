"""Entries of a comparison: their checks and their runs."""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from unistep.comparison.budget import Plan
from unistep.comparison.rows import Finished
from unistep.comparison.shared import Shared
from unistep.errors import Mistakes, UserError
from unistep.evaluation import Evaluation
from unistep.recipes.comparison import CompareRecipe
from unistep.recipes.entries import Skipped, entry_recipe
from unistep.recipes.schema import DistillRecipe
from unistep.run.console import Talk
from unistep.run.evaluation_fingerprint import Judging
from unistep.run.folder import load_run_recipe, settings
from unistep.run.preflight import require_ready
from unistep.teachers.teacher import Teacher


def entry_recipes(recipe: CompareRecipe) -> dict[str, DistillRecipe | Skipped]:
    """Each entry as a distill recipe, or why it is left out.

    Raises:
        UserError: naming the mistakes of all entries.
    """
    found, mistakes = dict[str, DistillRecipe | Skipped](), Mistakes()
    for name in recipe.entries:
        with mistakes.collect():
            found[name] = entry_recipe(recipe, name)
    mistakes.require_none()
    return found


def require_entries(
    recipe: CompareRecipe, entries: Mapping[str, DistillRecipe], shared: Path, device: torch.device, own: Teacher | None
) -> None:
    """Refuses entries that would stop later, before the teacher is taught or anything is solved or trained.

    Args:
        recipe: the comparison.
        entries: those that are to be run.
        shared: the folder of what entries share.
        device: where they run.
        own: the caller's own teacher; else it is loaded once for all.

    Raises:
        UserError: naming every mistake once, with the entries that have it.
    """
    found, lines = own, dict[str, list[str]]()
    places = Shared(shared, device, Talk(quiet=True), quiet=True)
    for name, entry in entries.items():
        try:
            found = require_ready(entry, places.teacher_folder(entry), device, found).loaded
        except UserError as error:
            for line in error.lines:
                lines.setdefault(line, []).append(name)
    mistakes = Mistakes()
    for line, names in lines.items():
        which = "every entry" if len(names) == len(entries) > 1 else f"entries.{', '.join(names)}"
        mistakes.add(f"{recipe.name}: {which}: {line}")
    mistakes.require_none()


@dataclass(frozen=True)
class Entry:
    """An entry with its plan and how it is judged; `recipe` is of the planned length."""

    name: str
    recipe: DistillRecipe
    plan: Plan
    judging: Judging


def seeded(recipe: DistillRecipe, seed: int) -> DistillRecipe:
    """An entry's recipe with one of the comparison's seeds."""
    name = f"{recipe.name}-seed-{seed}"
    return recipe.model_copy(update={"name": name, "training": recipe.training.model_copy(update={"seed": seed})})


def done(run: Path, recipe: DistillRecipe, judging: Judging) -> Evaluation | None:
    """The evaluation of a run of this very recipe; None if it has to be trained, exported or judged first."""
    file = run / "evaluation.json"
    if not file.is_file():
        return None
    stored = load_run_recipe(run)
    if not isinstance(stored, DistillRecipe) or settings(stored) != settings(recipe):
        return None
    if (stored.evaluation, stored.generator.weights) != (recipe.evaluation, recipe.generator.weights):
        return None
    try:
        evaluation = Evaluation.load(file)
    except UserError:  # of another version
        return None
    return evaluation if judging.made(evaluation) else None


def runs_of(entry: Entry, places: Mapping[int, Path], failed: Container[str]) -> tuple[Finished | None, list[Skipped]]:
    """An entry's runs that are there, and those that are not and have not failed.

    Args:
        entry: it.
        places: seed -> folder of the run.
        failed: names of runs that failed.
    """
    found = {seed: done(place, seeded(entry.recipe, seed), entry.judging) for seed, place in places.items()}
    evaluations = {seed: evaluation for seed, evaluation in found.items() if evaluation is not None}
    names = [run_name(entry, seed) for seed in places if seed not in evaluations]
    absent = [Skipped(name, "not run yet") for name in names if name not in failed]
    if not evaluations:
        return None, [Skipped(entry.name, "not run yet")] if len(absent) == len(places) else absent
    runs = {seed: places[seed] for seed in evaluations}
    return Finished(entry.name, entry.recipe, entry.plan, runs, evaluations), absent


def run_name(entry: Entry, seed: int) -> str:
    """What a run is called where it is told of."""
    return f"{entry.name}, seed {seed}"
