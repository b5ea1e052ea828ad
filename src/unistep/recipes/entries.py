"""From a comparison's entries to ordinary distill recipes: the base, what is set for all, what is set for one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unistep.diffusion.samplers import missing_package
from unistep.errors import UserError
from unistep.recipes.comparison import CompareRecipe
from unistep.recipes.extend import combine, recipe_layers
from unistep.recipes.load import recipe_from_values
from unistep.recipes.merge import merge
from unistep.recipes.schema import DistillRecipe


@dataclass(frozen=True)
class Skipped:
    """An entry that cannot be run here, and why."""

    name: str
    reason: str


def entry_recipe(comparison: CompareRecipe, name: str) -> DistillRecipe | Skipped:
    """An entry as a distill recipe of the length that it is written for; skipped where real images or a
    package of its pairs' solver are missing.

    Raises:
        UserError: naming the entry, for settings that do not fit or another teacher than the base's.
    """
    entry, base = comparison.entries[name], recipe_values(comparison.base)
    source = f"{comparison.name}: entries.{name}"
    if base.get("kind") != "distill":
        raise UserError(
            f"{comparison.name}: base: found {comparison.base}, a recipe of kind {base.get('kind')}, expected one of "
            "kind distill"
        )
    chosen = recipe_values(entry.recipe.replace("{base}", comparison.base))
    values = merge(merge(chosen, comparison.set), entry.set)
    judged = merge({"evaluation": base.get("evaluation", {})}, comparison.set)["evaluation"]
    values |= {"name": f"{comparison.name}-{name}", "about": entry.about, "evaluation": {**judged, "beside": {}}}
    require_teacher(values, merge(base, comparison.set), source)
    return checked(values, name, source)


def checked(values: dict[str, Any], name: str, source: str) -> DistillRecipe | Skipped:
    """The recipe of an entry's values, or why it has to be left out."""
    data = {"kind": "exact"} if values.get("data") is None else values["data"]
    recipe = require_distill({**values, "data": data}, source)  # whatever the data are: is all else right?
    if recipe.method.needs_pairs and recipe.pairs is not None:
        reason = missing_package(recipe.pairs.solver.name)
        if reason is not None:
            return Skipped(name, f"pairs.solver {recipe.pairs.solver.name} {reason}")
    if not recipe.method.needs_data:
        return require_distill(values, source)
    if values.get("data") is None:
        return Skipped(name, f"{recipe.method.name} learns from real images, and the recipe has no data")
    place = getattr(recipe.data, "place", None)
    if place is not None and not place.exists():
        return Skipped(name, f"{recipe.method.name} learns from real images, and {place} is not there")
    return recipe


def require_distill(values: dict[str, Any], source: str) -> DistillRecipe:
    """The checked recipe.

    Raises:
        UserError: for a recipe of another kind, or see `load_recipe`.
    """
    recipe = recipe_from_values(values, source)
    if not isinstance(recipe, DistillRecipe):
        raise UserError(f"{source}: found a recipe of kind {recipe.kind}, expected one of kind distill")
    if recipe.stages:
        raise UserError(f"{source}: stages: found {len(recipe.stages)}, expected none: lengths follow from the budget")
    return recipe


def require_teacher(values: Mapping[str, Any], base: Mapping[str, Any], source: str) -> None:
    """Refuses an entry with another teacher; guidance may differ."""
    teacher, of_base = (section.get("teacher") or {} for section in (values, base))
    if not isinstance(teacher, Mapping):
        raise UserError(f"{source}: teacher: found {teacher!r}, expected settings by name, such as guidance: 2")
    for key in ("load", "teach", "options"):
        found, expected = (section.get(key) or None for section in (teacher, of_base))
        if found != expected:
            raise UserError(
                f"{source}: teacher.{key}: found {found}, expected {expected}, the base's: one comparison, one teacher"
            )


def base_guidance(comparison: CompareRecipe) -> float:
    """The guidance of what is no entry: the teacher under solvers."""
    teacher = merge(recipe_values(comparison.base), comparison.set).get("teacher") or {}
    return float(teacher.get("guidance", 1.0))


def recipe_values(name: str) -> dict[str, Any]:
    """A recipe's plain values with those it extends, in its usual or its smoke form, not yet checked."""
    return combine(recipe_layers(name))
