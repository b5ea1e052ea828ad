"""What a limit, a split, a size and a camera's orientation do to images: each keeps its label, and its middle."""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import datasets

from unistep.data import DataConfig, ImageDataset, load_images
from unistep.data.images import drawn_rows, open_picture

LABELS = np.random.default_rng(0).integers(0, 10, 60)
VALUES = (20 * LABELS + 7).astype(np.uint8)  # every pixel of an image says its label


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def picture(array: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG", **options)  # type: ignore[arg-type]
    return file.getvalue()


def write_idx(root: Path) -> DataConfig:
    (root / "images").write_bytes(idx(np.tile(VALUES[:, None, None], (1, 5, 5))))
    (root / "labels").write_bytes(idx(LABELS))
    return DataConfig(kind="idx", path=str(root / "images"), labels_path=str(root / "labels"))


def write_cifar_binary(root: Path) -> DataConfig:
    rows = np.concatenate([LABELS[:, None], np.tile(VALUES[:, None], (1, 3072))], 1)
    (root / "b.bin").write_bytes(rows.astype(np.uint8).tobytes())
    return DataConfig(kind="cifar", path=str(root / "b.bin"))


def write_cifar_python(root: Path) -> DataConfig:
    batch = {"data": np.tile(VALUES[:, None], (1, 3072)), "labels": LABELS.tolist()}
    (root / "b").write_bytes(pickle.dumps(batch, protocol=2))
    return DataConfig(kind="cifar", path=str(root / "b"))


def write_folder(root: Path) -> DataConfig:
    for i, (label, value) in enumerate(zip(LABELS, VALUES, strict=True)):
        (root / str(label)).mkdir(exist_ok=True)
        (root / str(label) / f"{i}.png").write_bytes(picture(np.full((4, 4), value, np.uint8)))
    return DataConfig(kind="folder", path=str(root))


def labels_in_pixels(data: ImageDataset) -> list[int]:
    return ((data.images[:, 0, 0, 0].long() - 7) // 20).tolist()


@pytest.mark.parametrize("write", [write_idx, write_cifar_binary, write_cifar_python, write_folder])
def test_a_limit_keeps_each_image_beside_its_label(tmp_path: Path, write) -> None:
    config = write(tmp_path)
    for limit, count in ((None, 60), (17, 17), (60, 60), (99, 60)):
        data = load_images(config.model_copy(update={"limit": limit}))
        assert data.labels is not None
        assert len(data) == len(data.labels) == count
        assert labels_in_pixels(data) == data.labels.tolist()


def test_a_limit_draws_from_everywhere_and_always_the_same() -> None:
    rows = drawn_rows(1000, 100)
    assert torch.equal(rows, drawn_rows(1000, 100))
    assert torch.equal(rows, rows.unique())
    assert int(rows.min()) < 100
    assert int(rows.max()) >= 900


def test_the_two_splits_of_digits_are_all_of_them_once() -> None:
    parts = [load_images(DataConfig(kind="digits", split=split)) for split in ("train", "test")]
    images = np.concatenate([part.images.flatten(1).numpy() for part in parts])
    labels = np.concatenate([part.labels.numpy() for part in parts if part.labels is not None])
    digits = datasets.load_digits()
    theirs = np.column_stack([np.round(digits.data * (255 / 16)).astype(np.int64), digits.target])
    ours = np.column_stack([images.astype(np.int64), labels])
    assert sorted(map(tuple, ours)) == sorted(map(tuple, theirs))


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_limit_of_digits_is_a_part_of_its_split(split: str) -> None:
    whole, part = (load_images(DataConfig(kind="digits", split=split, limit=n)) for n in (None, 40))  # type: ignore[arg-type]
    assert part.labels is not None
    assert whole.labels is not None
    rows = drawn_rows(len(whole), 40)
    assert torch.equal(part.images, whole.images[rows])
    assert torch.equal(part.labels, whole.labels[rows])


def striped(height: int, width: int) -> np.ndarray:
    """Black, with the middle square of ascending greys."""
    image, side = np.zeros((height, width), np.uint8), min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    image[top : top + side, left : left + side] = 50 + np.arange(side * side).reshape(side, side)
    return image


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (8, 8), (10, 8)])
def test_a_size_cuts_out_the_middle_and_squashes_nothing(tmp_path: Path, shape: tuple[int, int]) -> None:
    image, middle = striped(*shape), torch.from_numpy(striped(8, 8))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "1.png").write_bytes(picture(image))
    (tmp_path / "images").write_bytes(idx(image[None]))
    for kind, name in (("folder", "folder"), ("idx", "images")):
        data = load_images(DataConfig(kind=kind, path=str(tmp_path / name), size=8))  # type: ignore[arg-type]
        assert torch.equal(data.images[0, 0], middle)


TURNS = {1: 0, 6: 3, 3: 2, 8: 1}  # EXIF's orientation -> quarter turns to the left that show it upright


@pytest.mark.parametrize("orientation", [*TURNS, 2, 4])
def test_pictures_are_turned_as_the_camera_was_held(tmp_path: Path, orientation: int) -> None:
    stored = striped(4, 6)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = picture(stored, exif=exif)
    mirrored = {2: stored[:, ::-1], 4: stored[::-1]}
    upright = mirrored[orientation] if orientation in mirrored else np.rot90(stored, TURNS[orientation])
    assert np.array_equal(np.asarray(open_picture("x.png", content)), upright)
    (tmp_path / "x.png").write_bytes(content)
    images = load_images(DataConfig(kind="folder", path=str(tmp_path))).images
    assert np.array_equal(images[0, 0].numpy(), upright)
