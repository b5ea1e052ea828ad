"""The settings that a recipe may have, by dotted path, with the values to choose from: for completion and for hints."""

from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from unistep.recipes.merge import TAGS
from unistep.training.resume import flatten

Keys = dict[str, tuple[str, ...]]
"""Dotted path -> the values to choose from, empty where any value may stand."""


def setting_keys(model: type[BaseModel], values: Mapping[str, Any] | None = None, prefix: str = "") -> Keys:
    """The settings of a model.

    Args:
        model: a recipe's.
        values: plain values that decide between methods, solvers and kinds, and name what is free to be named; without
            them the settings of each choice are there.
        prefix: of the paths.
    """
    keys: Keys = {}
    for name, field in model.model_fields.items():
        value = (values or {}).get(name)
        keys |= keys_below(field.annotation, value, f"{prefix}{name}")
    return keys


def keys_below(annotation: Any, value: Any, path: str) -> Keys:
    """The settings at and below a path."""
    models, held = models_in(annotation), value if isinstance(value, Mapping) else {}
    if is_mapping(annotation):
        inner = {f"{path}.{name}" for name in flatten(held)}
        if not models:
            return dict.fromkeys([path, *sorted(inner)], ())
        named = [
            setting_keys(models[0], one if isinstance(one, Mapping) else {}, f"{path}.{n}.") for n, one in held.items()
        ]
        return {path: (), **{key: choices for keys in named for key, choices in keys.items()}}
    keys: Keys = {path: () if models else tuple(choices_in(annotation))}
    tag = TAGS.get(path.rpartition(".")[2])
    chosen = [model for model in models if tag in held and held[tag] in tags(model)] or models
    for model in chosen:
        keys |= setting_keys(model, held, f"{path}.")
    if len(models) > 1 and f"{path}.{tag}" in keys:
        keys[f"{path}.{tag}"] = tuple(str(name) for model in models for name in tags_of(model, str(tag)))
    return keys


def is_mapping(annotation: Any) -> bool:
    """Whether any names may stand at a place, as in `optim` or `options`."""
    return any(get_origin(part) is dict or part is dict for part in (annotation, *get_args(annotation)))


def tags_of(model: type[BaseModel], tag: str) -> tuple[Any, ...]:
    """The names that choose a model."""
    return tuple(choices_in(model.model_fields[tag].annotation))


def choices_in(annotation: Any) -> Iterator[str]:
    """The values of an enumeration or a switch."""
    if annotation is bool:
        yield from ("false", "true")
    elif get_origin(annotation) is Literal:
        yield from (str(choice) for choice in get_args(annotation))
    elif get_origin(annotation) is Annotated:
        yield from choices_in(get_args(annotation)[0])
    elif get_origin(annotation) not in (dict, tuple, list):
        for part in get_args(annotation):
            yield from choices_in(part)


def same_key(model: type[BaseModel], parts: Sequence[str]) -> list[str]:
    """The first setting of another section with the last part as its key, as a list of at most one."""
    paths = [path for path in setting_keys(model) if path.rpartition(".")[0] != ".".join(parts[:-1])]
    return [path for path in paths if path.rpartition(".")[2] == parts[-1]][:1]


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that may stand at a place, in order."""
    if hasattr(annotation, "model_fields"):
        return [annotation]
    if get_origin(annotation) not in (Union, UnionType, Annotated, dict, tuple):
        return []
    return [model for part in get_args(annotation) for model in models_in(part)]


def tags(model: type[BaseModel]) -> tuple[Any, ...]:
    """The texts that a model's own fields tell it from others by."""
    literals = [field.annotation for field in model.model_fields.values() if get_origin(field.annotation) is Literal]
    return tuple(tag for literal in literals for tag in get_args(literal))
