"""Checks of a comparison's entries before anything is made: every mistake once, with the entries that have it."""

from collections.abc import Mapping
from pathlib import Path

import torch

from unistep.api.preflight import require_ready
from unistep.api.shared import Shared
from unistep.api.talk import Talk
from unistep.errors import Mistakes, UserError
from unistep.recipes.comparison import CompareRecipe
from unistep.recipes.entries import Skipped, entry_recipe
from unistep.recipes.schema import DistillRecipe
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
