"""Text files and JSON, whoever wrote them: what cannot be read ends in one line that names the file."""

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
        values.append(parse_json(line, f"{path}: row {number}", "correct it"))
    return values


def read_json(path: Path, advice: str) -> dict[str, Any]:
    """Reads the JSON object in a file.

    Args:
        path: the file.
        advice: what to do about one that cannot be read, the end of the message.

    Raises:
        UserError: for anything but a JSON object in UTF-8.
        OSError: for a file that is missing or cannot be opened.
    """
    value = parse_json(Path(path).read_bytes(), path, advice)
    if not isinstance(value, dict):
        raise UserError(f"{path}: found JSON of type {type(value).__name__}, expected an object; {advice}")
    return value


def parse_json(text: str | bytes, source: str | Path, advice: str) -> Any:
    """Reads a JSON value from text.

    Raises:
        UserError: naming the source, for what is no JSON in UTF-8, nests too deeply or holds numbers without end.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise UserError(f"{source}: no readable JSON (nested too deeply); {advice}") from error
    except ValueError as error:  # also bytes that are no UTF-8, and integers of thousands of digits
        reason = str(error).split("; use sys.")[0]
        raise UserError(f"{source}: no readable JSON ({reason}); {advice}") from error
