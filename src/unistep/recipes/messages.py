"""What is wrong with a recipe, a line for each mistake: the path, what was found, what is allowed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from unistep.errors import brief
from unistep.recipes.keys import models_in, same_key, tags

EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dataclass_type": "a mapping",
    "none_required": "null",
}


MOST_DESCRIBED = 50  # of a recipe's mistakes; the nearest keys of thousands take minutes


class SettingErrors(ValueError):
    """Several mistakes of one section, raised by a model's own check."""

    def __init__(self, messages: Sequence[str]):
        self.messages = tuple(messages)
        super().__init__("; ".join(messages))


@dataclass(frozen=True)
class Problem:
    """A mistake in a recipe.

    Attributes:
        places: dotted paths of the settings concerned, empty where none is named.
        message: one line, `method.weighting: found 'eq9', expected 'eq8', ...`.
        is_missing: whether a setting is not there that must be.
    """

    places: tuple[str, ...]
    message: str
    is_missing: bool


def problems(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Every mistake that a validation found; not those of a whole that only follow from a part of it."""
    found = error.errors(include_url=False)
    parts = {problem["loc"][:depth] for problem in found for depth in range(1, len(problem["loc"]))}
    own = [problem for problem in found if problem["loc"] not in parts]
    described = [
        Problem(places_in(message), message, problem["type"] == "missing")
        for problem in own[:MOST_DESCRIBED]
        for message in describe(problem, model)
    ]
    others = len(own) - MOST_DESCRIBED
    return [*described, Problem((), f"{others:,} mistakes more", False)] if others > 0 else described


def places_in(message: str) -> tuple[str, ...]:
    """The settings that a message begins with: `ema.half_life, decay: found ...` names two of `ema`."""
    found = re.match(r"([\w.-]+(?:, [\w.-]+)*): ", message)
    if found is None:
        return ()
    first, *others = found[1].split(", ")
    section = first.rpartition(".")[0]
    return (first, *(f"{section}.{other}".removeprefix(".") if "." not in other else other for other in others))


def describe(problem: Any, model: type[BaseModel]) -> list[str]:
    """The lines of one of pydantic's problems; a model's own check may have several."""
    parts, place = followed(model, problem["loc"])
    path = ".".join(parts) or "recipe"
    if problem["type"] == "extra_forbidden":
        allowed = sorted(getattr(place, "model_fields", {}))
        return [f"{brief(path)}: unknown key; {suggestion(parts[-1], allowed, same_key(model, parts))}"]
    if problem["type"].startswith("union_tag"):
        return [untold(problem, path, place)]
    if problem["type"] == "missing":
        return [f"{path}: missing, a value is needed"]
    if problem["type"] in ("value_error", "assertion_error"):
        error = problem.get("ctx", {}).get("error")
        own = getattr(error, "messages", None) or getattr(error, "lines", None)
        messages = own or (problem["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, "),)
        return [placed(message, path if parts else "") for message in messages]
    wanted = EXPECTED.get(problem["type"]) or problem["msg"].removeprefix("Input should be ")
    return [f"{path}: found {brief(repr(problem['input']))}, expected {wanted}"]


def placed(message: str, path: str) -> str:
    """A check's message under the path of its section."""
    if not path:
        return message
    return f"{path}.{message}" if ": found" in message else f"{path}: {message}"


def suggestion(key: str, allowed: list[str], elsewhere: list[str]) -> str:
    """The nearest allowed key, or that of another section, and all that are allowed."""
    close = get_close_matches(key, allowed, 1) or elsewhere
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}expected one of {', '.join(allowed)}"


def followed(model: type[BaseModel], location: tuple[Any, ...]) -> tuple[list[str], Any]:
    """A location as the user wrote it, and the model that holds its last part (or would, were it known).

    Where several models may stand, pydantic's location names the chosen one too, which is no part of the path.
    """
    parts: list[str] = []
    place: Any = model
    chosen = False
    for part in location:
        if chosen:
            place, chosen = next((m for m in place if part in tags(m)), None), False
            continue
        parts.append(str(part))
        fields = getattr(place, "model_fields", {})
        if part in fields:
            models = models_in(fields[part].annotation)
            place, chosen = (models, True) if len(models) > 1 else (models[0] if models else None, False)
    return parts, place


def untold(problem: Any, path: str, models: list[type[BaseModel]]) -> str:
    """What to say where none of several models was named."""
    if not isinstance(problem["input"], dict):
        return f"{path}: found {brief(repr(problem['input']))}, expected a mapping"
    key = next(iter({"name", "kind"} & set(models[0].model_fields)))
    known = [str(tag) for model in models for tag in get_args(model.model_fields[key].annotation)]
    if key not in problem["input"]:
        return f"{path}.{key}: missing, expected one of {', '.join(known)}"
    close = get_close_matches(str(problem["input"][key]), known, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{path}.{key}: found {brief(repr(problem['input'][key]))}; {hint}expected one of {', '.join(known)}"
