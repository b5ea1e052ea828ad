"""A recipe on top of another: `extends: NAME`, and only what differs."""

from typing import Any

from unistep.errors import UserError
from unistep.recipes.builtin import read_recipe
from unistep.recipes.parse import parse_yaml

DEEPEST = 8  # recipes on top of each other


def extended(values: dict[str, Any], source: str, depth: int = 0) -> dict[str, Any]:
    """The values with those of the recipe that they extend below them.

    A section's keys take the place of the base's keys, each as a whole; `method` takes the place of the base's method.
    The base's own name and comment are not inherited.

    Raises:
        UserError: for a base that is no recipe, cannot be found or extends itself.
    """
    if "extends" not in values:
        return values
    base_name = values["extends"]
    if not isinstance(base_name, str) or depth == DEEPEST:
        wanted = "a recipe's name or path" if depth < DEEPEST else f"at most {DEEPEST} recipes on top of each other"
        raise UserError(f"{source}: extends: found {base_name!r}, expected {wanted}")
    text, base_source = read_recipe(base_name)
    base = parse_yaml(text, base_source)
    if not isinstance(base, dict):
        raise UserError(f"{source}: extends: found {base_name}, which is no mapping, expected a recipe")
    base = {key: value for key, value in extended(base, base_source, depth + 1).items() if key not in ("name", "about")}
    own = {key: value for key, value in values.items() if key != "extends"}
    return {**base, **{key: merged(key, base.get(key), value) for key, value in own.items()}}


def merged(section: str, below: Any, value: Any) -> Any:
    """One section over the base's."""
    if section == "method" or not isinstance(below, dict) or not isinstance(value, dict):
        return value
    return {**below, **value}
