"""Captions of pictures in a folder: from `metadata.jsonl`, from text files beside them, from their own names."""

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from unistep.data.captions import columns_of, filled
from unistep.errors import Mistakes, UserError
from unistep.io.text_files import parsed, read_lines

METADATA, FILE, SIDE_CAR = "metadata.jsonl", "file_name", ".txt"
SHOWN = 3  # files of a kind that are named; the others are counted


def split_texts(root: Path, files: Iterable[Path]) -> tuple[list[Path], dict[Path, Path], list[Path]]:
    """The pictures among files, the side-car of each that has one, and text files that are none's.

    A side-car is a text file beside a picture, of the same name up to the ending: `a.txt` belongs to `a.png`.
    """
    texts, others = dict[Path, Path](), list[Path]()
    for file in files:
        if file.suffix.lower() == SIDE_CAR:
            texts[file.with_suffix("")] = file
        elif file != root / METADATA:
            others.append(file)
    side_cars = {file: texts[file.with_suffix("")] for file in others if file.with_suffix("") in texts}
    return others, side_cars, sorted({*texts.values()} - {*side_cars.values()})


def listed_pictures(root: Path, template: str) -> tuple[list[Path], list[dict[str, Any]]]:
    """The pictures that `metadata.jsonl` lists, in its order, and its rows.

    Raises:
        UserError: for a damaged list, rows without a field that the template names, or pictures that are not there.
    """
    file, own = root / METADATA, {"stem", "folder"}
    rows = parsed(file, read_lines(file))
    if not rows:
        raise UserError(f"{file}: found no rows, expected one per picture")
    fields = {name for row in rows if isinstance(row, dict) for name in row}
    needed = (FILE, *(name for name in columns_of(template) if name not in own - fields))
    mistakes = Mistakes()
    for name in needed:
        lacking = [i for i, row in enumerate(rows, start=1) if not isinstance(row, dict) or name not in row]
        if lacking:
            others = f" ({len(lacking):,} rows without it)" if len(lacking) > 1 else ""
            mistakes.add(f"{file}: row {lacking[0]}: found no {name!r}, expected an object with it{others}")
    mistakes.require_none()
    files = [root / str(row[FILE]) for row in rows]
    if outside := [str(row[FILE]) for row in rows if not is_below(str(row[FILE]))]:
        raise UserError(f"{file}: found {FILE} {outside[0]!r}, expected files below {root} alone")
    if missing := [file for file in files if not file.is_file()]:
        others = f" (and {len(missing) - 1:,} more)" if len(missing) > 1 else ""
        raise UserError(f"{missing[0]}: not found, expected it: {METADATA} lists it{others}")
    return files, rows


def is_below(name: str) -> bool:
    """Whether a relative path stays in its folder and can be a file's at all."""
    place = Path(name)
    return not place.is_absolute() and ".." not in place.parts and "\0" not in name


def folder_captions(
    template: str, root: Path, files: Sequence[Path], rows: Sequence[dict[str, Any]], side_cars: dict[Path, Path]
) -> tuple[str, ...]:
    """The caption of each picture.

    Args:
        template: of captions.
        root: the folder that all pictures are below.
        files: the pictures.
        rows: of `metadata.jsonl`, one for each picture; empty without this file.
        side_cars: text files of the pictures, as far as they have one.

    Raises:
        UserError: for names that nothing gives, and for pictures without a side-car, folder or text that is needed.
    """
    fields = {name for row in rows for name in row}
    sources: dict[str, Callable[[], Sequence[Any]]] = {
        "stem": lambda: [composed(file.stem) for file in files],
        "folder": lambda: folder_names(files, root),
    }
    if rows:
        sources |= {name: lambda name=name: [row[name] for row in rows] for name in fields}
    else:
        sources["text"] = lambda: side_car_texts(files, root, side_cars)
    if unknown := [name for name in columns_of(template) if name not in sources]:
        raise UserError(
            f"data.caption: found {' and '.join(f'{{{name}}}' for name in unknown)}, expected {{stem}}, {{folder}} or "
            f"{{text}} (from a {SIDE_CAR} file beside each picture): {root} has no {METADATA} with other fields"
        )
    mistakes, values = Mistakes(), dict[str, Sequence[Any]]()
    for name in columns_of(template):
        with mistakes.collect():
            values[name] = sources[name]()
    mistakes.require_none()
    return filled(template, values, range(len(files)))


def folder_names(files: Sequence[Path], root: Path) -> list[str]:
    """The name of the sub-folder of `root` that each file is in, however deep.

    Raises:
        UserError: for files of root itself.
    """
    if loose := [file for file in files if file.parent == root]:
        raise UserError(
            f"data.caption: found {len(loose):,} pictures in no sub-folder ({several(loose, root)}), expected one for "
            "each: the caption names its {folder}"
        )
    return [composed(file.relative_to(root).parts[0]) for file in files]


def composed(name: str) -> str:
    """A name as text: file systems write the same accent in one character or in two."""
    return unicodedata.normalize("NFC", name)


def side_car_texts(files: Sequence[Path], root: Path, side_cars: dict[Path, Path]) -> list[str]:
    """The text of each picture; lines of one text are joined by spaces.

    Raises:
        UserError: for pictures without one, empty ones, and ones that cannot be read.
    """
    mistakes, texts = Mistakes(), dict[Path, str]()
    if missing := [file for file in files if file not in side_cars]:
        mistakes.add(
            f"data.caption: {len(missing):,} of {len(files):,} pictures have no text ({several(missing, root)}), "
            f"expected a file beside each: {missing[0].with_suffix(SIDE_CAR).name} for {missing[0].name}"
        )
    for file in (file for file in files if file in side_cars):
        with mistakes.collect():
            texts[file] = " ".join(" ".join(read_lines(side_cars[file])).removeprefix("\ufeff").split())
    if empty := [side_cars[file] for file, text in texts.items() if not text]:
        mistakes.add(f"data.caption: {len(empty):,} texts are empty ({several(empty, root)}), expected captions")
    mistakes.require_none()
    return [texts[file] for file in files]


def several(files: Sequence[Path], root: Path) -> str:
    """Some files by their place below root, and how many there are beside."""
    names = ", ".join(str(file.relative_to(root)) for file in files[:SHOWN])
    return f"{names} and {len(files) - SHOWN:,} more" if len(files) > SHOWN else names
