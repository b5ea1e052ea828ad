"""What is wrong with a recipe, in one line: the path, what was found, what is allowed."""

from difflib import get_close_matches
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

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
    "dataclass_type": "a mapping",
    "none_required": "null",
}


def explain(error: ValidationError, model: type[BaseModel], source: str) -> str:
    """One line for the first problem of a validation, and how many more there are."""
    first, *others = error.errors(include_url=False)
    more = f" (and {len(others)} more)" if others else ""
    return f"{source}: {describe(first, model)}{more}"


def describe(problem: Any, model: type[BaseModel]) -> str:
    """`method.weighting: found 'eq9', expected 'eq8', ...`."""
    location: tuple[Any, ...] = problem["loc"]
    path = ".".join(str(part) for part in location) or "recipe"
    if problem["type"] == "extra_forbidden":
        return f"{path}: unknown key; {suggestion(str(location[-1]), allowed_keys(model, location[:-1]))}"
    if problem["type"] == "missing":
        return f"{path}: missing, a value is needed"
    if problem["type"] in ("value_error", "assertion_error"):
        message = problem["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        return message if not location else f"{path}.{message}" if ": found" in message else f"{path}: {message}"
    wanted = EXPECTED.get(problem["type"]) or problem["msg"].removeprefix("Input should be ")
    return f"{path}: found {problem['input']!r}, expected {wanted}"


def suggestion(key: str, allowed: list[str]) -> str:
    """The nearest allowed key, and all of them."""
    close = get_close_matches(key, allowed, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}expected one of {', '.join(allowed)}"


def allowed_keys(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """Field names of the model found by following `location` from `model`."""
    place: Any = model
    for part in location:
        fields = getattr(place, "model_fields", {})
        if part in fields:
            place = inner_model(fields[part].annotation)
    return sorted(getattr(place, "model_fields", {}))


def inner_model(annotation: Any) -> Any:
    """The model inside `Model | None`, or the annotation itself."""
    if get_origin(annotation) in (Union, UnionType):
        models = [part for part in get_args(annotation) if hasattr(part, "model_fields")]
        return models[0] if models else annotation
    return annotation
