"""Plain values of a recipe as arguments of a class: names and types are checked first."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError

from unistep.errors import UserError, shortened

LOOSE = ConfigDict(arbitrary_types_allowed=True)
LARGEST, MOST_BLOCKS, MOST_VALUES = 2**20, 128, 4096  # of a network's numbers, its blocks or layers, its lists
WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    dict: "a mapping",
    dict | None: "a mapping",
}


def require_arguments(make: Callable[..., Any], values: Mapping[str, Any], section: str) -> None:
    """The values must be arguments that `make` takes, each of the type it is annotated with.

    Args:
        make: a class or function with annotated parameters; with `**kwargs` other names pass unchecked.
        values: argument name -> plain value.
        section: of the recipe, for the message.

    Raises:
        UserError: naming the first unknown, missing or ill-typed argument.
    """
    parameters = inspect.signature(make).parameters
    named = {name: p for name, p in parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD}
    for name in values:
        if name not in named and len(named) == len(parameters):
            close = get_close_matches(name, named, 1)
            hint = f"did you mean {close[0]}? " if close else ""
            known = f"one of {', '.join(sorted(named))}" if named else "no more keys"
            raise UserError(f"{section}.{name}: unknown key; {hint}expected {known}")
    for name, parameter in named.items():
        if name in values:
            require_type(values[name], parameter.annotation, f"{section}.{name}")
        elif parameter.default is inspect.Parameter.empty:
            raise UserError(f"{section}.{name}: missing, a value is needed")


def require_bounded(values: Mapping[str, Any], section: str) -> None:
    """The numbers of a network's settings must be such that a network can be described with them.

    Args:
        values: argument name -> plain value; lists and mappings are looked into.
        section: of the recipe or file, for the message.

    Raises:
        UserError: for the first number or list that is too large, or a number that is not finite.
    """
    for name, value in values.items():
        path, most = (
            f"{section}.{name}",
            MOST_BLOCKS if any(w in name for w in ("block", "layer", "depth")) else LARGEST,
        )
        entries = value if isinstance(value, list | tuple) else [value]
        if len(entries) > MOST_VALUES:
            raise UserError(f"{path}: found {len(entries):,} values, expected at most {MOST_VALUES:,}")
        for entry in entries:
            if isinstance(entry, list | tuple | Mapping):
                require_bounded(entry if isinstance(entry, Mapping) else {name: entry}, section)
            elif isinstance(entry, int | float) and not abs(entry) <= most:
                raise UserError(f"{path}: found {shortened(repr(entry))}, expected at most {most:,}")


def require_choice(value: Any, choices: Iterable[str], path: str) -> str:
    """The value, which must be one of the names, whatever else a recipe or a file may hold there.

    Raises:
        UserError: naming the path, what was found and the choices.
    """
    names = tuple(choices)
    if not isinstance(value, str) or value not in names:
        close = get_close_matches(value, names, 1) if isinstance(value, str) else []
        hint = f"; did you mean {close[0]}?" if close else ","
        raise UserError(f"{path}: found {value!r}{hint} expected one of {', '.join(names)}")
    return value


def require_type(value: Any, wanted: Any, path: str) -> None:
    """Strictly: "64" is not 64 and 1.5 is not 1; lists pass for tuples.

    Raises:
        UserError: naming the path, what was found and what is expected.
    """
    held = tuple(value) if isinstance(value, list) else value
    try:
        TypeAdapter(wanted, config=LOOSE).validate_python(held, strict=True)
    except ValidationError as error:
        listed = get_origin(wanted) in (Sequence, tuple) and not isinstance(value, list)
        words = WORDS.get(wanted, error.errors()[0]["msg"].removeprefix("Input should be "))
        words = "a list" if listed else words
        raise UserError(f"{path}: found {value!r}, expected {words}") from error
