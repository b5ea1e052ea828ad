"""Overrides of a recipe: `a.b=c` items as the command line has them, or a mapping from Python."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from unistep.errors import UserError, brief
from unistep.recipes.merge import TAGS, merge
from unistep.recipes.parse import parse_yaml

Overrides = Iterable[str] | Mapping[str, Any]
"""`["training.steps=10"]`, `{"training.steps": 10}` or `{"training": {"steps": 10}}`."""


def read_overrides(overrides: Overrides) -> dict[str, Any]:
    """The overrides as one tree of settings; the values of `a.b=c` items are read as YAML.

    Raises:
        UserError: for anything else than items or a mapping, an item without `=`, or an empty part of a path.
    """
    if isinstance(overrides, str | bytes) or not isinstance(overrides, Iterable):
        raise UserError(
            f"overrides: found {overrides!r}, expected a list such as ['training.steps=10'] or a mapping such as "
            "{'training.steps': 10}"
        )
    pairs = overrides.items() if isinstance(overrides, Mapping) else map(split_item, overrides)
    overlay: dict[str, Any] = {}
    for path, value in pairs:
        overlay = merge(overlay, nest(path, value))
    return overlay


def split_item(item: Any) -> tuple[str, Any]:
    """Path and value of `method.lambda_reg=0.5`."""
    path, equals, text = item.partition("=") if isinstance(item, str) else ("", "", "")
    if not equals or not path.strip():
        raise UserError(f"--set {brief(item)}: expected PATH=VALUE, for example --set method.lambda_reg=0.5")
    return path.strip(), parse_yaml(text, f"--set {brief(item)}")


def nest(path: Any, value: Any) -> dict[str, Any]:
    """One setting as a tree: `a.b`, 1 -> {a: {b: 1}}."""
    keys = path.split(".") if isinstance(path, str) else [""]
    if not all(keys):
        raise UserError(f"--set {brief(path)}: expected PATH=VALUE, for example --set method.lambda_reg=0.5")
    nested = to_plain(value)
    for key in reversed(keys):
        nested = {key: nested}
    return nested


def to_plain(value: Any) -> Any:
    """A value as YAML would hold it: tuples as lists, paths as text."""
    if isinstance(value, Mapping):
        return {key: to_plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def require_sections(values: Mapping[str, Any], overlay: Mapping[str, Any], path: str = "") -> None:
    """Refuses an override whose path leads through something that is no section.

    Raises:
        UserError: naming the path and what stands there.
    """
    for key, over in overlay.items():
        place, below = f"{path}{key}", values.get(key)
        if not isinstance(over, Mapping) or below is None or (key in TAGS and isinstance(below, str)):
            continue
        if not isinstance(below, Mapping):
            inner = next(iter(over), "...")
            raise UserError(f"--set {place}.{inner}: {place} is {brief(repr(below))}, it has nothing inside")
        require_sections(below, over, f"{place}.")


def with_flags(overrides: Overrides, seed: int | None, device: str) -> dict[str, Any]:
    """Overrides with the flags that stand for one: `--seed` and `--device`."""
    flags = {"seed": seed, "device": None if device == "auto" else device}
    given = {key: value for key, value in flags.items() if value is not None}
    return merge(read_overrides(overrides), {"training": given} if given else {})
