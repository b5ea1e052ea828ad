"""Prints what a recipe resolves to: every value, and beside it where it comes from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from unistep.recipes.extend import Layer, combine, recipe_layers
from unistep.recipes.load import in_one_line, load_recipe
from unistep.recipes.overrides import Overrides
from unistep.training.resume import flatten

DEFAULT = "default"


def resolved_recipe(recipe: str | Path, overrides: Overrides = ()) -> str:
    """A recipe as YAML with every value spelt out and a comment that names its source.

    Sources are the built-in names and files that the recipe is made of, `smoke form`, `--set` and `default`. The text
    is a recipe itself and can be run as it is.

    Args:
        recipe: a built-in name or the path of a YAML file, either with `:smoke` for its smoke form.
        overrides: see `recipes.overrides`.

    Raises:
        UserError: for a recipe that is refused.
    """
    values = load_recipe(recipe, overrides).model_dump(mode="json")
    origins = setting_sources(recipe_layers(recipe, overrides))
    lines = [(text, source_of(path, origins)) for text, path in render(values)]
    width = min(max(len(text) for text, _ in lines), 72)
    return "".join(f"{text:<{width}}  # {source}\n" if source else f"{text}\n" for text, source in lines)


def setting_sources(layers: list[Layer]) -> dict[str, str]:
    """Dotted path -> source of each setting that a layer gives and no later one replaces."""
    kept = flatten(combine(layers))
    return {path: layer.source for layer in layers for path in flatten(layer.values) if path in kept}


def source_of(path: str | None, origins: Mapping[str, str]) -> str:
    """Where a setting comes from; a name alone, such as `solver: heun`, stands for a section."""
    if path is None:
        return ""
    exact = origins.get(path)
    section, _, key = path.rpartition(".")
    return exact or (origins.get(section, DEFAULT) if key in ("name", "kind", "type") else DEFAULT)


def render(values: Mapping[str, Any], path: str = "", depth: int = 0) -> list[tuple[str, str | None]]:
    """Lines of YAML, each with the path of the setting it holds; None where it only begins a section."""
    lines: list[tuple[str, str | None]] = []
    for key, value in values.items():
        head, place = "  " * depth + yaml.safe_dump(key).splitlines()[0] + ":", f"{path}{key}"
        if isinstance(value, Mapping) and value:
            lines += [(head, None), *render(value, f"{place}.", depth + 1)]
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            lines.append((head, place))
            block = yaml.safe_dump(value, sort_keys=False, width=10_000, default_flow_style=None).splitlines()
            lines += [("  " * (depth + 1) + line, None) for line in block]
        else:
            lines.append((f"{head} {in_one_line(value)}", place))
    return lines
