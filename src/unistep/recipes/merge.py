"""The one rule by which settings are merged: `extends`, smoke forms, stages, entries of comparisons and `--set`."""

from collections.abc import Mapping
from typing import Any

TAGS = {"method": "name", "solver": "name", "data": "kind", "real": "kind", "network": "type", "process": "type"}
"""Sections whose settings depend on a choice, and the key that names the choice."""

USUAL = {"method": "dmd", "solver": "heun", "process": "edm"}
"""The choices of those sections that need not name one."""

NAMED = ("optim", "beside", "entries", "options")
"""Mappings of names, of networks, rows, entries or options: there null leaves out what the base has."""


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Lays settings over others, neither of which is changed.

    Mappings merge key by key at every depth; text, numbers, null and lists replace what they are laid over. Where a
    section is a choice (`TAGS`) and the overlay names another one than the base, the overlay replaces the section as a
    whole: the base's settings belong to the other choice.
    """
    return {**base, **{key: merge_value(key, base.get(key), value) for key, value in overlay.items()}}


def merge_value(key: str, base: Any, overlay: Any) -> Any:
    """Lays one value over the one that stands under the same key."""
    if key in TAGS and isinstance(base, str):
        base = {TAGS[key]: base}  # `solver: auto` stands for `solver: {name: auto}`
    if not isinstance(base, Mapping) or not isinstance(overlay, Mapping) or is_other_choice(key, base, overlay):
        return dict(overlay) if isinstance(overlay, Mapping) else overlay
    return merge(base, overlay)


def is_other_choice(key: str, base: Mapping[str, Any], overlay: Mapping[str, Any]) -> bool:
    """Whether an overlay names another method, solver, kind or type than the base."""
    tag = TAGS.get(key)
    if tag is None or tag not in overlay:
        return False
    return overlay[tag] != base.get(tag, USUAL.get(key, overlay[tag]))


def drop_null(values: Mapping[str, Any], key: str = "") -> dict[str, Any]:
    """The merged settings without the names (`NAMED`) that null leaves out.

    A `set`, of a comparison or of an entry, is still to be laid over a base: its nulls have their work before them.
    """
    if key == "set":
        return dict(values)
    kept = {name: value for name, value in values.items() if value is not None or key not in NAMED}
    return {name: drop_null(value, name) if isinstance(value, Mapping) else value for name, value in kept.items()}
