"""From a recipe's name or path to a checked, frozen recipe, and back to YAML."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from unistep.errors import UserError
from unistep.io.arguments import require_choice
from unistep.recipes.comparison import CompareRecipe
from unistep.recipes.extend import combine, recipe_layers
from unistep.recipes.keys import Keys, setting_keys
from unistep.recipes.merge import drop_null
from unistep.recipes.overrides import Overrides, to_plain
from unistep.recipes.parse import require_plain
from unistep.recipes.schema import DistillRecipe, TeachRecipe
from unistep.recipes.smoke import without_form
from unistep.recipes.stages import stages_of
from unistep.recipes.validate import validate
from unistep.training.resume import flatten

Recipe = DistillRecipe | TeachRecipe | CompareRecipe
RecipeLike = str | Path | Mapping[str, Any] | Recipe
"""A built-in name or a path, plain values, or a recipe that is already loaded."""

KINDS: dict[str, type[Recipe]] = {"distill": DistillRecipe, "teach": TeachRecipe, "compare": CompareRecipe}


def load_recipe(recipe: RecipeLike, overrides: Overrides = ()) -> Recipe:
    """A checked recipe.

    Args:
        recipe: a built-in name or the path of a YAML file, either with `:smoke` for its smoke form; a mapping, as YAML
            would hold it; or a recipe that is already loaded.
        overrides: `a.b=c` items, merged in order (see `recipes.merge`) before checking; or a mapping,
            `{"training.steps": 10}` or `{"training": {"steps": 10}}`.

    Raises:
        UserError: naming the path in the recipe, what was found and what is allowed.
    """
    given = recipe.model_dump(mode="json") if isinstance(recipe, Recipe) else recipe
    if isinstance(given, Mapping):
        given = to_plain(given)
        source = str(given.get("name", "recipe"))
    elif isinstance(given, str | Path):
        source = without_form(given)
    else:
        raise UserError(f"recipe: found {given!r}, expected a built-in name, the path of a YAML file or a mapping")
    return recipe_from_values(combine(recipe_layers(given, overrides)), source)


def recipe_from_values(values: dict[str, Any], source: str) -> Recipe:
    """Checks plain values; nothing is converted from one type to another, except whole numbers to numbers.

    Raises:
        UserError: see `load_recipe`.
    """
    require_plain(values, source)
    kind = require_choice(values.get("kind"), KINDS, f"{source}: kind")
    values = {"name": Path(source).stem, **drop_null(values)}
    recipe = validate(KINDS[kind], values, source)
    if isinstance(recipe, DistillRecipe):
        stages_of(recipe)
    return recipe


AnyRecipe = TypeVar("AnyRecipe", DistillRecipe, TeachRecipe, CompareRecipe)


def recipe_of(model: type[AnyRecipe], recipe: RecipeLike, overrides: Overrides = ()) -> AnyRecipe:
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


def settings_of_recipe(recipe: str | Path | None, overrides: Overrides = ()) -> tuple[Keys, dict[str, str]]:
    """The settings that overrides may change, and their present values as YAML; of a distillation without a recipe.

    Raises:
        UserError: for a recipe that cannot be found or is refused.
    """
    if recipe is None:
        return setting_keys(DistillRecipe), {}
    loaded = load_recipe(recipe, overrides)
    values = loaded.model_dump(mode="json")
    keys = setting_keys(type(loaded), values)
    if isinstance(loaded, CompareRecipe):
        base = load_recipe(loaded.base).model_dump(mode="json")
        keys |= setting_keys(DistillRecipe, base, "set.")
    return keys, {key: in_one_line(value) for key, value in flatten(values).items()}


def in_one_line(value: Any) -> str:
    """A value as YAML in one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
