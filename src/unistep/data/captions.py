"""Captions by a template: `'{text}, {style} style'` is filled from the columns that it names."""

from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any

from unistep.errors import UserError

FILLED = (str, int, float)


def columns_of(template: str) -> tuple[str, ...]:
    """The columns that a template names, each once.

    Raises:
        UserError: for a template that names none, or says more than names.
    """
    try:
        parts = [(name, spec, how) for _, name, spec, how in Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise UserError(f"caption: found {template!r}, expected names of columns in braces ({error})") from error
    if not parts or any(not name.isidentifier() or spec or how for name, spec, how in parts):
        raise UserError(f"caption: found {template!r}, expected names of columns in braces, such as '{{text}}'")
    return tuple(dict.fromkeys(name for name, _, _ in parts))


def filled(template: str, columns: Mapping[str, Sequence[Any]], rows: Sequence[int]) -> tuple[str, ...]:
    """The caption of each of the rows.

    Args:
        template: of captions.
        columns: the values of the columns it names, from row 0.
        rows: which rows.

    Raises:
        UserError: for a value that is no text or number, or a caption that is empty.
    """
    captions, wrong = [], []
    for row in rows:
        values = {name: values[row] for name, values in columns.items()}
        other = next((name for name, value in values.items() if not isinstance(value, FILLED)), None)
        caption = "" if other is not None else template.format(**values).strip()
        if other is not None:
            wrong.append(f"row {row}: found {values[other]!r} in {other!r}, expected a text or a number")
        elif not caption:
            wrong.append(f"row {row}: found an empty caption, expected a text; fill it or remove it")
        captions.append(caption)
    if wrong:
        others = f" (and {len(wrong) - 1:,} more rows)" if len(wrong) > 1 else ""
        raise UserError(f"data.caption: {wrong[0]}{others}")
    return tuple(captions)
