"""A recipe layer by layer: what it extends (`extends: NAME`), itself, its smoke form and overrides."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from unistep.errors import UserError
from unistep.recipes.builtin import read_recipe
from unistep.recipes.merge import merge
from unistep.recipes.overrides import Overrides, read_overrides, require_sections
from unistep.recipes.parse import parse_recipe_text, parse_yaml
from unistep.recipes.smoke import is_smoke, smoke_settings, without_form

DEEPEST = 8  # recipes on top of each other
SMOKE, SET = "smoke form", "--set"


@dataclass(frozen=True)
class Layer:
    """Settings from one place.

    Attributes:
        source: a built-in recipe's name, a file, `smoke form` or `--set`.
        values: plain values.
    """

    source: str
    values: Mapping[str, Any]


def recipe_layers(recipe: str | Path | Mapping[str, Any], overrides: Overrides = ()) -> list[Layer]:
    """A recipe's plain values layer by layer, not yet checked: what it extends, itself, its smoke form, overrides.

    Args:
        recipe: a built-in name or the path of a YAML file, either with `:smoke` for its smoke form; or plain values.
        overrides: see `recipes.overrides`.

    Raises:
        UserError: for a recipe that cannot be found or read, a missing smoke form, or overrides that are none.
    """
    if isinstance(recipe, Mapping):
        values, source = dict(recipe), str(recipe.get("name", "recipe"))
    else:
        text, source = read_recipe(without_form(recipe))
        values = parse_recipe_text(text, source)
    layers = extended(values, source)
    smoke = smoke_settings(combine(layers), source) if not isinstance(recipe, Mapping) and is_smoke(recipe) else {}
    usual = [Layer(layer.source, {k: v for k, v in layer.values.items() if k != "smoke"}) for layer in layers]
    usual += [Layer(SMOKE, smoke)] if smoke else []
    overlay = read_overrides(overrides)
    require_sections(combine(usual), overlay)
    return [*usual, Layer(SET, overlay)] if overlay else usual


def extended(values: dict[str, Any], source: str, depth: int = 0) -> list[Layer]:
    """The values with those of the recipes that they extend below them, lowest first.

    The base's own name and comment are not inherited.

    Raises:
        UserError: for a base that is no recipe, cannot be found or extends itself.
    """
    if "extends" not in values:
        return [Layer(source, values)]
    base_name = values["extends"]
    if not isinstance(base_name, str) or depth == DEEPEST:
        wanted = "a recipe's name or path" if depth < DEEPEST else f"at most {DEEPEST} recipes on top of each other"
        raise UserError(f"{source}: extends: found {base_name!r}, expected {wanted}")
    text, base_source = read_recipe(base_name)
    base = parse_yaml(text, base_source)
    if not isinstance(base, dict):
        raise UserError(f"{source}: extends: found {base_name}, which is no mapping, expected a recipe")
    below = [
        Layer(layer.source, {key: value for key, value in layer.values.items() if key not in ("name", "about")})
        for layer in extended(base, base_source, depth + 1)
    ]
    return [*below, Layer(source, {key: value for key, value in values.items() if key != "extends"})]


def combine(layers: Iterable[Layer]) -> dict[str, Any]:
    """The layers merged, the last one on top."""
    return reduce(merge, (layer.values for layer in layers), {})
