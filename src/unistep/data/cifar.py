"""Reader of CIFAR-10's batches: the binary ones, and the python ones through a reader that runs nothing."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unistep.data.config import DataConfig
from unistep.data.dataset import ImageDataset
from unistep.data.images import drawn_rows, fit_arrays
from unistep.errors import UserError
from unistep.io.pickles import Allowed, read_pickle
from unistep.io.pickles.arrays import NUMPY, array_of
from unistep.io.pickles.values import Defect

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PIXELS = 3 * 32 * 32  # all red ones, then green, then blue, row by row
RECORD = 1 + PIXELS  # the label first
MAX_BYTES = 2**30
ARRAYS_ONLY = Allowed(NUMPY, "NumPy arrays only")
BATCHES = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}


def load_cifar(config: DataConfig) -> ImageDataset:
    """CIFAR-10's folder as it is unpacked (`split` chooses, train by default), or a single batch file.

    A file ending in `.bin` is binary; any other is taken for a python batch.

    Raises:
        UserError: for missing, cut-off or foreign files, or a pickle that asks for anything but NumPy arrays.
    """
    batches = [read_batch(path) for path in cifar_paths(config)]
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    rows = drawn_rows(len(images), config.limit)
    return ImageDataset(images=fit_arrays(images[rows], config), labels=labels[rows], names=config.names or NAMES)


def cifar_paths(config: DataConfig) -> list[Path]:
    """The batch files that a configuration means."""
    root = Path(config.path or "")
    if root.is_file() and config.split is None:
        return [root]
    if root.is_file():
        raise UserError(f"data.split: found {config.split}, expected nothing: {root} is one batch, not a folder")
    names = BATCHES[config.split or "train"]
    for suffix in (".bin", ""):
        paths = [root / f"{name}{suffix}" for name in names]
        if any(path.is_file() for path in paths):
            return paths  # a missing one is named when it is read
    raise UserError(f"{root}: found no CIFAR-10 batch, expected {names[0]}.bin or {names[0]} in that folder")


def read_batch(path: Path) -> tuple[Tensor, Tensor]:
    """Images uint8 [n, 3, 32, 32] and labels int64 [n] of one file."""
    if not path.is_file():
        raise UserError(f"{path}: not found; expected a CIFAR-10 batch, so unpack the archive again")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise UserError(f"{path}: {size} bytes, expected at most {MAX_BYTES}; this is no CIFAR-10 batch")
    pixels, labels = read_binary(path) if path.suffix == ".bin" else read_python(path)
    if labels.size and not 0 <= labels.min() <= labels.max() < len(NAMES):
        raise UserError(
            f"{path}: found label {labels.max()}, expected 0 to {len(NAMES) - 1}; this is no CIFAR-10 batch"
        )
    return torch.from_numpy(pixels.reshape(-1, 3, 32, 32).copy()), torch.from_numpy(labels.astype(np.int64))


def read_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Records of one label and 3,072 pixels, end to end."""
    content = np.fromfile(path, np.uint8)
    if content.size == 0 or content.size % RECORD:
        raise UserError(
            f"{path}: {content.size} bytes, expected a multiple of {RECORD}; the file is cut off or foreign"
        )
    records = content.reshape(-1, RECORD)
    return records[:, 1:], records[:, 0]


def read_python(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A pickled dictionary with `data` [n, 3072] and `labels`."""
    batch = read_pickle(path.read_bytes(), str(path), ARRAYS_ONLY)
    entries = {k.decode("latin-1") if isinstance(k, bytes) else k: v for k, v in as_dict(batch, path).items()}
    pixels, labels = byte_array(entries.get("data"), path), entries.get("labels")
    if pixels.ndim != 2 or pixels.shape[1] != PIXELS or not len(pixels):
        raise UserError(f"{path}: data of shape {list(pixels.shape)}, expected [n, {PIXELS}]")
    if not isinstance(labels, list) or len(labels) != len(pixels) or not all(type(k) is int for k in labels):
        raise UserError(f"{path}: found no list of {len(pixels)} whole numbers under `labels`; fetch the file again")
    return pixels, np.array(labels)


def as_dict(value: object, path: Path) -> dict[object, object]:
    """The unpickled value, which must be a dictionary."""
    if not isinstance(value, dict):
        raise UserError(f"{path}: a pickle of {type(value).__name__}, expected a dictionary with `data` and `labels`")
    return value


def byte_array(value: object, path: Path) -> NDArray[np.uint8]:
    """The array of unsigned bytes behind a value."""
    try:
        array = array_of(value)
    except (Defect, ValueError):  # ValueError: bytes that do not fill the shape
        array = np.empty(0)
    if array.dtype != np.uint8:
        raise UserError(f"{path}: found no NumPy array of unsigned bytes where one was expected; fetch the file again")
    return array.view(np.uint8)
