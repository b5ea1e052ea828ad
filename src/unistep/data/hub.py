"""Reader of a dataset of the hub whose rows hold pictures (extra `datasets`)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unistep.data.captions import columns_of, filled
from unistep.data.config import DataConfig
from unistep.data.dataset import ImageDataset
from unistep.data.images import decode_images, drawn_rows
from unistep.data.labels import class_indices
from unistep.errors import UserError
from unistep.io.hub import load_rows
from unistep.io.optional import import_optional


def load_hub(config: DataConfig) -> ImageDataset:
    """The pictures of a split (train where none is given), with labels and captions where columns are named.

    Classes have the names that the dataset gives them, unless the configuration does.

    Raises:
        UserError: without the library, for a dataset that cannot be read, columns that are missing or of another type,
            and pictures that are none.
    """
    name, split = config.path or "", config.split or "train"
    rows = load_rows(name, config.subset, split, "data.path")
    source = f"{name}, {split}"
    wanted = [config.image_column, *([config.label_column] if config.label_column else [])]
    texts = columns_of(config.caption) if config.caption is not None else ()
    if missing := [column for column in (*wanted, *texts) if column not in rows.column_names]:
        raise UserError(f"{source}: found no column {missing[0]!r}, expected one of {', '.join(rows.column_names)}")
    if not len(rows):
        raise UserError(f"{source}: found no rows, expected one per image")
    drawn = drawn_rows(len(rows), config.limit)
    images = decode_images(pictures(undecoded(rows, config.image_column), drawn.tolist(), config, source), config)
    values = {column: list(rows[column]) for column in texts}
    captions = () if config.caption is None else filled(config.caption, values, drawn.tolist())
    if config.label_column is None:
        return ImageDataset(images=images, captions=captions)
    indices, names = class_indices(list(rows[config.label_column]), named(config, rows))
    return ImageDataset(images=images, labels=indices[drawn], names=names, captions=captions)


def named(config: DataConfig, rows: Any) -> DataConfig:
    """The configuration, with the dataset's names of the classes where it has none of its own."""
    names = getattr(rows.features[config.label_column], "names", None)
    return config if config.names or not names else config.model_copy(update={"names": tuple(names)})


def undecoded(rows: Any, column: str) -> Any:
    """One column of encoded pictures: they are decoded as those of every other reader are."""
    image, alone = import_optional("datasets", "datasets").Image, rows.select_columns([column])
    return alone.cast_column(column, image(decode=False)) if isinstance(rows.features[column], image) else alone


def pictures(rows: Any, drawn: list[int], config: DataConfig, source: str) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each of the drawn rows; a picture may lie in a file of its own."""
    column = config.image_column
    for row in drawn:
        value, where = rows[row][column], f"{source}, row {row}"
        content = value.get("bytes") if isinstance(value, dict) else value
        if content is None and isinstance(value, dict) and value.get("path") and Path(value["path"]).is_file():
            content = Path(value["path"]).read_bytes()
        if not isinstance(content, bytes):
            raise UserError(f"{where}: column {column!r} holds no picture, expected one, or the bytes of one")
        yield where, content
