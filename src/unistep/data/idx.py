"""Reader of idx files, the format of MNIST and its relatives, gzipped or not."""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import torch
from torch import Tensor

from unistep.data.config import DataConfig
from unistep.data.dataset import ImageDataset
from unistep.data.images import drawn_rows, fit_arrays
from unistep.errors import UserError

UINT8 = 0x08  # the only element type that images and class labels have
MAX_BYTES = 16 * 2**30  # a header is never trusted beyond this


def read_idx(path: Path, num_dims: int) -> Tensor:
    """The array in an idx file, uint8 with `num_dims` dimensions.

    Raises:
        UserError: if the file is missing, is no idx file of unsigned bytes with that many dimensions, or is shorter or
            longer than its header says.
    """
    try:
        with path.open("rb") as plain:
            gzipped = plain.read(2) == b"\x1f\x8b"
        with cast(BinaryIO, gzip.open(path, "rb")) if gzipped else path.open("rb") as file:
            return read_array(file, path, num_dims)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(f"{path}: damaged gzip file ({error}); fetch it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); expected an idx file") from error


def read_array(file: BinaryIO, path: Path, num_dims: int) -> Tensor:
    """Header (two zero bytes, type, number of dimensions, big-endian sizes), then the bytes, then the end."""
    header = file.read(4 + 4 * num_dims)
    expected = bytes([0, 0, UINT8, num_dims])
    if header[:4] != expected or len(header) != 4 + 4 * num_dims:
        raise UserError(
            f"{path}: header {header[:4].hex()}, expected {expected.hex()} (an idx file of unsigned bytes with "
            f"{num_dims} dimension{'s' if num_dims > 1 else ''}: images have 3, labels 1)"
        )
    sizes = struct.unpack(f">{num_dims}I", header[4:])
    count = math.prod(sizes)
    if not 0 < count <= MAX_BYTES:
        raise UserError(f"{path}: header says {sizes}, expected 1 to {MAX_BYTES} bytes of data")
    body = read_at_most(file, count + 1)
    if len(body) != count:
        found = "more" if len(body) > count else str(len(body))
        raise UserError(f"{path}: {found} bytes of data, expected {count} for {sizes}; the file is cut off or damaged")
    return torch.frombuffer(body, dtype=torch.uint8).reshape(sizes)


def read_at_most(file: BinaryIO, limit: int, chunk: int = 2**24) -> bytearray:
    """Up to `limit` bytes, in pieces, so that a lying header reserves no memory."""
    body = bytearray()
    while len(body) < limit and (piece := file.read(min(chunk, limit - len(body)))):
        body += piece
    return body


def load_idx(config: DataConfig) -> ImageDataset:
    """MNIST's four files in a folder (`split` chooses), or one file of images and, if wanted, one of labels.

    Raises:
        UserError: for missing or damaged files, or another number of labels than of images.
    """
    image_path, label_path = idx_paths(config)
    images = read_idx(image_path, 3)[:, None]
    labels = read_idx(label_path, 1).long() if label_path else None
    if labels is not None and len(labels) != len(images):
        raise UserError(
            f"{label_path}: {len(labels)} labels, expected {len(images)}, as many as {image_path} has images"
        )
    rows = drawn_rows(len(images), config.limit)
    images = fit_arrays(images[rows], config)
    if labels is None:
        return ImageDataset(images=images)
    names = config.names or tuple(str(k) for k in range(int(labels.max()) + 1))
    return ImageDataset(images=images, labels=labels[rows], names=names)


def idx_paths(config: DataConfig) -> tuple[Path, Path | None]:
    """The files of images and labels that a configuration means."""
    root = Path(config.path or "")
    if not root.is_dir():
        if config.split:
            raise UserError(f"data.split: found {config.split}, expected nothing: {root} is no folder with both splits")
        return root, Path(config.labels_path) if config.labels_path else None
    if config.labels_path:
        raise UserError(
            f"data.labels_path: found {config.labels_path}, expected nothing: data.path is a folder, {root}"
        )
    stem = {"train": "train", "test": "t10k"}[config.split or "train"]
    return existing(root / f"{stem}-images-idx3-ubyte"), existing(root / f"{stem}-labels-idx1-ubyte")


def existing(path: Path) -> Path:
    """That file, or the same gzipped."""
    for candidate in (path, path.with_name(f"{path.name}.gz")):
        if candidate.is_file():
            return candidate
    raise UserError(f"{path}: found neither this file nor {path.name}.gz; expected MNIST's file names in that folder")
