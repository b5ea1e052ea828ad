"""Reader of parquet files whose rows hold encoded pictures (extra `parquet`)."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from unistep.data.captions import columns_of, filled
from unistep.data.config import DataConfig
from unistep.data.dataset import ImageDataset
from unistep.data.images import decode_images, drawn_rows
from unistep.data.labels import class_indices
from unistep.errors import UserError


def load_parquet(config: DataConfig) -> ImageDataset:
    """Pictures of a parquet file, or of all in a folder (those whose name begins with `split`, if given).

    Raises:
        UserError: without pyarrow, for files that are no parquet, columns that are missing or of another type, rows
            without a picture or label, and pictures that are none.
    """
    paths = parquet_paths(config)
    labels = [label for path in paths for label in column(path, config.label_column)] if config.label_column else None
    n = len(labels) if labels is not None else sum(num_rows(path) for path in paths)
    if n == 0:
        raise UserError(f"{paths[0]}: found no rows, expected one per image")
    rows = drawn_rows(n, config.limit)
    images = decode_images(pictures(paths, config.image_column, set(rows.tolist())), config)
    captions = captions_of(paths, config, rows.tolist())
    if labels is None:
        return ImageDataset(images=images, captions=captions)
    indices, names = class_indices(labels, config)
    return ImageDataset(images=images, labels=indices[rows], names=names, captions=captions)


def captions_of(paths: list[Path], config: DataConfig, rows: list[int]) -> tuple[str, ...]:
    """The captions of the rows, counted over all files; none without a template."""
    if config.caption is None:
        return ()
    values = {name: [v for path in paths for v in column(path, name)] for name in columns_of(config.caption)}
    return filled(config.caption, values, rows)


def parquet_paths(config: DataConfig) -> list[Path]:
    """The files that a configuration means, sorted by name."""
    root = Path(config.path or "")
    if root.is_file() and config.split is None:
        return [root]
    if root.is_file():
        raise UserError(f"data.split: found {config.split}, expected nothing: {root} is one file, not a folder")
    pattern = f"{config.split or ''}*.parquet"
    if not (found := sorted(root.glob(pattern))):
        raise UserError(f"{root}: found no parquet file, expected one, or a folder with {pattern}")
    return found


def open_parquet(path: Path) -> Any:
    """pyarrow's reader of a file."""
    with readable(path):
        from pyarrow.parquet import ParquetFile

        return ParquetFile(path)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Says in one line what pyarrow finds wrong with a file."""
    try:
        import pyarrow
    except ImportError as error:
        raise UserError("data.kind: found 'parquet', but pyarrow is missing; pip install 'unistep[parquet]'") from error
    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: no readable parquet file ({str(error).splitlines()[0]})") from error


def num_rows(path: Path) -> int:
    """Number of rows of a file."""
    return open_parquet(path).metadata.num_rows


def column(path: Path, name: str) -> Iterator[Any]:
    """The values of one column, in order, none of them missing."""
    file = open_parquet(path)
    if name not in file.schema_arrow.names:
        raise UserError(f"{path}: found no column {name!r}, expected one of {', '.join(file.schema_arrow.names)}")
    for row, value in enumerate(chain.from_iterable(batches(file, path, name))):
        if value is None:
            raise UserError(f"{path}: row {row} of column {name!r} is empty; remove the row")
        yield value


def batches(file: Any, path: Path, name: str) -> Iterator[list[Any]]:
    """The values of one column, some rows at a time; a page may be damaged though the file could be opened."""
    with readable(path):
        for batch in file.iter_batches(batch_size=256, columns=[name]):
            yield batch.column(0).to_pylist()


def pictures(paths: list[Path], name: str, wanted: set[int]) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of the wanted rows, counted over all files."""
    row = 0
    for path in paths:
        for index, value in enumerate(column(path, name)):
            if row in wanted:
                yield f"{path}, row {index}", picture_bytes(value, path, name)
            row += 1


def picture_bytes(value: object, path: Path, name: str) -> bytes:
    """Bytes of a binary value or of a struct {bytes, path}."""
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise UserError(f"{path}: column {name!r} holds no picture bytes, expected binary or a struct with `bytes`")
    return content
