"""Prompts from a text file, JSON lines, parquet or a dataset of the hub: one text for each row, in the file's order."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from unistep.errors import UserError
from unistep.io.hub import load_rows
from unistep.io.text_files import parsed, read_lines

COLUMNS = ("prompt", "text", "caption")
DATASETS = "datasets:"


def read_prompts(spec: str) -> tuple[str, ...]:
    """The prompts of a file or dataset, in order.

    Args:
        spec: a path ending in .txt (a prompt a line; blank lines are none), .jsonl or .parquet (of each row the field
            prompt, text or caption), or `datasets:OWNER/NAME`, `datasets:OWNER/NAME:SPLIT` (extra `datasets`).

    Raises:
        UserError: if there is nothing there, a row holds no text, or there is no row.
    """
    if spec.startswith(DATASETS):
        prompts = from_dataset(spec.removeprefix(DATASETS))
    else:
        path = Path(spec)
        reader = READERS.get(path.suffix)
        if reader is None:
            raise UserError(f"prompts: found {spec}, expected a file ending in {', '.join(READERS)}, or {DATASETS}ID")
        if not path.is_file():
            raise UserError(f"prompts: found no file {spec}, expected one with the prompts")
        prompts = reader(path)
    if not prompts:
        raise UserError(f"{spec}: found no prompt, expected at least one")
    return tuple(prompts)


def from_text(path: Path) -> list[str]:
    """A prompt a line."""
    return [line.strip() for line in read_lines(path) if line.strip()]


def from_jsonl(path: Path) -> list[str]:
    """An object (or a bare text) a line."""
    rows = enumerate(parsed(path, from_text(path)), start=1)
    return [row if isinstance(row, str) else text_of(row, f"{path}: row {number}") for number, row in rows]


def from_parquet(path: Path) -> list[str]:
    """The first known column."""
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError(f"{path}: pyarrow is not installed; install it with pip install 'unistep[parquet]'") from error
    try:
        names = parquet.read_schema(path).names
        column = column_of(names, str(path))
        values = parquet.read_table(path, columns=[column])[column].to_pylist()
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: no readable parquet file ({error}); restore it") from error
    return [text_of({column: value}, f"{path}: row {i}") for i, value in enumerate(values, start=1)]


def from_dataset(spec: str) -> list[str]:
    """A split of a dataset of the hub, `train` where none is named."""
    name, _, split = spec.partition(":")
    rows = load_rows(name, None, split or "train", "prompts")
    column = column_of(rows.column_names, spec)
    return [text_of({column: value}, f"{spec}: row {i}") for i, value in enumerate(rows[column], start=1)]


def column_of(names: Iterable[str], place: str) -> str:
    """The column that holds the prompts."""
    known = list(names)
    for column in COLUMNS:
        if column in known:
            return column
    raise UserError(f"{place}: found the columns {', '.join(known)}, expected one of {', '.join(COLUMNS)}")


def text_of(row: Any, place: str) -> str:
    """The text of one row."""
    if not isinstance(row, Mapping):
        raise UserError(f"{place}: found {row!r}, expected an object with one of {', '.join(COLUMNS)}")
    value = row[column_of(row, place)]
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{place}: found {value!r}, expected a text")
    return value.strip()


READERS: Mapping[str, Callable[[Path], list[str]]] = {
    ".txt": from_text,
    ".jsonl": from_jsonl,
    ".parquet": from_parquet,
}
