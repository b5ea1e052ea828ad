"""Pictures with captions in a folder: `metadata.jsonl` names the files, as the hub's image folders have it."""

from pathlib import Path
from typing import Any

from unistep.data.captions import columns_of, filled
from unistep.data.config import DataConfig
from unistep.data.dataset import ImageDataset
from unistep.data.images import decode_images, drawn_rows
from unistep.errors import UserError
from unistep.text_files import parsed, read_lines

METADATA, FILE = "metadata.jsonl", "file_name"


def load_captioned_folder(config: DataConfig, root: Path) -> ImageDataset:
    """The pictures that `metadata.jsonl` lists, in its order, each with its caption.

    Raises:
        UserError: for a missing or damaged list, a picture that is not there, or one without what its caption needs.
    """
    assert config.caption is not None
    listed = read_metadata(root / METADATA, (FILE, *columns_of(config.caption)))
    rows = drawn_rows(len(listed), config.limit).tolist()
    files = [root / str(listed[row][FILE]) for row in rows]
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise UserError(f"{missing}: not found, expected it: {METADATA} lists it")
    values = {name: [line[name] for line in listed] for name in columns_of(config.caption)}
    images = decode_images(((str(file), file.read_bytes()) for file in files), config)
    return ImageDataset(images=images, captions=filled(config.caption, values, rows))


def read_metadata(file: Path, needed: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rows of a list, each with the fields that are needed."""
    if not file.is_file():
        raise UserError(f"{file}: not found, expected it: data.caption is filled from it")
    listed = parsed(file, read_lines(file))
    for number, row in enumerate(listed, start=1):
        for name in needed:
            if not isinstance(row, dict) or name not in row:
                raise UserError(f"{file}: row {number}: found no {name!r}, expected an object with it")
    if not listed:
        raise UserError(f"{file}: found no rows, expected one per picture")
    return listed
