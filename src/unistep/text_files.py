"""Lines of text files of the user's, and JSON values a line; what cannot be read is named by file and row."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unistep.errors import UserError


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, blank ones included.

    Raises:
        UserError: for other encodings than UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: no UTF-8 text ({error}); save the file as UTF-8") from error


def parsed(path: Path, lines: Iterable[str]) -> list[Any]:
    """JSON values, one of each line; rows count from 1.

    Raises:
        UserError: for a line that holds none.
    """
    values = []
    for number, line in enumerate(lines, start=1):
        try:
            values.append(json.loads(line))
        except ValueError as error:
            raise UserError(f"{path}: row {number}: no readable JSON ({error}); correct it") from error
    return values
