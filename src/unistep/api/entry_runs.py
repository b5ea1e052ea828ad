"""Which runs of a comparison's entries are done: trained by this very recipe and judged as all others are."""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path

from unistep.api.budgets import Plan
from unistep.api.compared import Finished
from unistep.api.judged_alike import Judging
from unistep.api.runs import load_run_recipe, settings
from unistep.errors import UserError
from unistep.evaluation import Evaluation
from unistep.recipes.entries import Skipped
from unistep.recipes.schema import DistillRecipe


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
