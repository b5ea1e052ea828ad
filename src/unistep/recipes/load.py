"""From a recipe's name or path to a checked, frozen recipe, and back to YAML."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from unistep.arguments import require_choice
from unistep.errors import UserError
from unistep.recipes.builtin import read_recipe
from unistep.recipes.comparison import CompareRecipe
from unistep.recipes.extend import extended
from unistep.recipes.messages import explain
from unistep.recipes.parse import apply_override, parse_recipe_text, require_plain
from unistep.recipes.schema import DistillRecipe, TeachRecipe
from unistep.recipes.smoke import in_form, is_smoke, without_form
from unistep.recipes.stages import stages_of

Recipe = DistillRecipe | TeachRecipe | CompareRecipe

KINDS: dict[str, type[Recipe]] = {"distill": DistillRecipe, "teach": TeachRecipe, "compare": CompareRecipe}


def load_recipe(recipe: str | Path | Recipe, overrides: Iterable[str] = ()) -> Recipe:
    """A checked recipe.

    Args:
        recipe: a built-in name or the path of a YAML file, either with `:smoke` for its smoke form; or a recipe that is
            already loaded.
        overrides: `a.b=c` items, applied in order before checking.

    Raises:
        UserError: naming the path in the recipe, what was found and what is allowed.
    """
    if isinstance(recipe, Recipe):
        text, source, smoke = dump_recipe(recipe), recipe.name, False
    else:
        (text, source), smoke = read_recipe(without_form(recipe)), is_smoke(recipe)
    values = in_form(extended(parse_recipe_text(text, source), source), source, smoke)
    for override in overrides:
        apply_override(values, override)
    return recipe_from_values(values, source)


def recipe_from_values(values: dict[str, Any], source: str) -> Recipe:
    """Checks plain values; nothing is converted from one type to another, except whole numbers to numbers.

    Raises:
        UserError: see `load_recipe`.
    """
    require_plain(values, source)
    kind = require_choice(values.get("kind"), KINDS, f"{source}: kind")
    values = {"name": Path(source).stem, **values}
    try:
        # JSON mode is strict about types and still reads lists as tuples, which frozen models hold.
        recipe = KINDS[kind].model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise UserError(explain(error, KINDS[kind], source)) from error
    if isinstance(recipe, DistillRecipe):
        stages_of(recipe)
    return recipe


AnyRecipe = TypeVar("AnyRecipe", DistillRecipe, TeachRecipe, CompareRecipe)


def recipe_of(model: type[AnyRecipe], recipe: str | Path | Recipe, overrides: Iterable[str] = ()) -> AnyRecipe:
    """A checked recipe of one kind.

    Raises:
        UserError: if the recipe is of another kind, or see `load_recipe`.
    """
    loaded = load_recipe(recipe, overrides)
    if not isinstance(loaded, model):
        named = recipe if isinstance(recipe, str | Path) else loaded.name
        raise UserError(f"recipe {loaded.name}: its kind is {loaded.kind}; use `unistep {loaded.kind} {named}`")
    return loaded


def dump_recipe(recipe: Recipe) -> str:
    """A recipe as YAML with every value spelt out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, width=120)
