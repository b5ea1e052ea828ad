"""Folders, idx files and digits: what they give, and what is said of files that are broken."""

import gzip
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from unistep.data import DataConfig, load_images
from unistep.data.images import MAX_PIXELS, open_picture
from unistep.errors import UserError


def png(colour: object, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, "PNG")  # type: ignore[arg-type]
    return file.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def deep_png(width: int = 2) -> bytes:
    """A color PNG of 16 bits per channel, which Pillow does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, width, 16, 2, 0, 0, 0))
    rows = zlib.compress((b"\0" + bytes(6 * width)) * width)
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


DEEP_COLOR = deep_png()
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n%%EOF\n"  # Pillow would start Ghostscript
IMAGES = np.arange(6 * 5 * 5, dtype=np.uint8).reshape(6, 5, 5)
LABELS = np.array([0, 1, 2, 0, 1, 2], np.uint8)


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    for stem, n in (("train", 6), ("t10k", 2)):
        write(tmp_path / f"{stem}-images-idx3-ubyte.gz", gzip.compress(idx(IMAGES[:n])))
        write(tmp_path / f"{stem}-labels-idx1-ubyte", idx(LABELS[:n]))
    return tmp_path


class TestFolder:
    def test_each_sub_folder_is_a_class(self, tmp_path: Path) -> None:
        for name, colour in (("cat/1.png", "red"), ("cat/more/2.png", "green"), ("ant/3.png", "blue")):
            write(tmp_path / name, png(colour))
        write(tmp_path / ".DS_Store", b"?")
        write(tmp_path / "cat" / ".hidden", b"?")
        data = load_images(DataConfig(kind="folder", path=str(tmp_path)))
        assert data.names == ("ant", "cat") and data.labels is not None
        assert data.labels.tolist() == [0, 1, 1] and data.shape == (3, 8, 8) and data.images.dtype == torch.uint8
        assert data.images[:, :, 0, 0].tolist() == [[0, 0, 255], [255, 0, 0], [0, 128, 0]]
        assert data.num_classes == 2 and len(data.select(torch.tensor([2, 0]))) == 2

    def test_loose_files_have_no_labels(self, tmp_path: Path) -> None:
        write(tmp_path / "train" / "b.png", png(200, mode="L"))
        write(tmp_path / "train" / "a.png", png(100, mode="L"))
        data = load_images(DataConfig(kind="folder", path=str(tmp_path), split="train"))
        assert data.labels is None and data.names == () and data.images[:, 0, 0, 0].tolist() == [100, 200]

    @pytest.mark.parametrize(
        ("files", "options", "message"),
        [
            ({}, {}, "found no files"),
            (
                {"a/1.png": png("red"), "a/notes.txt": b"hello"},
                {},
                r"found 1 text files that belong to no image \(a/notes\.txt\)",
            ),
            ({"a/1.png": png("red"), "a/notes.pdf": b"hello"}, {}, r"notes\.pdf: no image"),
            (
                {"a/1.png": png("red"), "b.png": png("red")},
                {},
                r"b\.png: a file beside class folders; move it into one",
            ),
            ({"1.png": png("red")[:-25]}, {}, r"1\.png: damaged image"),
            ({"1.png": png("red"), "2.png": png("red", (9, 8))}, {}, r"2\.png: 9x8 pixels, but .*1\.png has 8x8"),
            ({"1.png": png(3, mode="L"), "2.png": png("red")}, {}, r"2\.png: a colour picture, but .*1\.png is grey"),
            ({"1.png": png(700, mode="I;16")}, {}, r"1\.png: found 16 bits per channel, expected 8 bits"),
            ({"1.ppm": b"P6 2 2 65535\n" + bytes(24)}, {}, r"1\.ppm: found 16 bits per channel, expected 8 bits"),
            ({"1.png": DEEP_COLOR}, {}, r"1\.png: found 16 bits per channel, expected 8 bits"),
            ({"1.png": EPS}, {}, r"1\.png: no image; expected one of PNG"),
            ({"1.png": png("red")}, {"split": "test"}, "found no folder"),
            ({"1.png": png("red")}, {"path": "/nowhere"}, "/nowhere: found no folder"),
        ],
    )
    def test_mistakes_are_named(self, tmp_path: Path, files: dict[str, bytes], options: dict, message: str) -> None:
        for name, content in files.items():
            write(tmp_path / name, content)
        with pytest.raises(UserError, match=message):
            load_images(DataConfig(**{"kind": "folder", "path": str(tmp_path), **options}))

    def test_size_and_channels_are_made_alike(self, tmp_path: Path) -> None:
        write(tmp_path / "1.png", png("white", (20, 10)))
        write(tmp_path / "2.png", png(255, (6, 6), "L"))
        data = load_images(DataConfig(kind="folder", path=str(tmp_path), size=8, channels=1))
        assert data.shape == (1, 8, 8) and bool((data.images == 255).all())

    def test_transparency_is_white(self) -> None:
        assert open_picture("x", png((0, 0, 0, 0), mode="RGBA")).getpixel((0, 0)) == (255, 255, 255)
        assert open_picture("x", png((0, 255), mode="LA")).getpixel((0, 0)) == 0

    def test_a_promise_of_too_many_pixels_is_refused(self) -> None:
        header = struct.pack(">IIBBBBB", 2**16, MAX_PIXELS // 2**16 + 1, 8, 0, 0, 0, 0)
        chunk = b"IHDR" + header
        bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
        end = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
        with pytest.raises(UserError, match="bomb.png: "):
            open_picture("bomb.png", bomb + end)

    @pytest.mark.parametrize("exif", [b"XXXX\x08\0\0\0", b"II*\0\x08\0"])
    def test_damaged_exif_is_a_user_error(self, exif: bytes) -> None:
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, "PNG", exif=b"Exif\0\0" + exif)
        with pytest.raises(UserError, match=r"x\.png: damaged image"):
            open_picture("x.png", file.getvalue())

    def test_a_dds_file_of_no_known_form_is_a_user_error(self) -> None:
        content = b"DDS " + struct.pack("<7I", 124, 0, 8, 8, 0, 0, 0) + bytes(96)
        with pytest.raises(UserError, match=r"x\.dds: no image; expected one of PNG"):
            open_picture("x.dds", content)

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 60), st.binary(min_size=1, max_size=8))
    def test_damaged_pictures_are_user_errors(self, place: int, noise: bytes) -> None:
        content = png("red")
        try:
            open_picture("x.png", content[:place] + noise + content[place + len(noise) :])
        except UserError as error:
            assert str(error).startswith("x.png: ")


class TestIdx:
    def test_the_four_files_of_mnist(self, mnist: Path) -> None:
        train = load_images(DataConfig(kind="idx", path=str(mnist)))
        test = load_images(DataConfig(kind="idx", path=str(mnist), split="test", names=("a", "b", "c")))
        assert torch.equal(train.images[:, 0], torch.from_numpy(IMAGES)) and train.labels is not None
        assert train.labels.tolist() == LABELS.tolist() and train.names == ("0", "1", "2")
        assert len(test) == 2 and test.names == ("a", "b", "c")

    def test_single_files(self, mnist: Path) -> None:
        path, labels = mnist / "train-images-idx3-ubyte.gz", mnist / "train-labels-idx1-ubyte"
        assert load_images(DataConfig(kind="idx", path=str(path))).labels is None
        data = load_images(DataConfig(kind="idx", path=str(path), labels_path=str(labels), limit=4, size=8, channels=3))
        assert data.shape == (3, 8, 8) and len(data) == 4

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (idx(IMAGES)[:-1], "149 bytes of data, expected 150"),
            (idx(IMAGES) + b"x", "more bytes of data, expected 150"),
            (idx(LABELS), "header 00000801, expected 00000803"),
            (idx(IMAGES, kind=0x0D), "header 00000d03"),
            (b"", "header , expected"),
            (idx(IMAGES)[:9], "header 00000803"),
            (gzip.compress(idx(IMAGES), mtime=0)[:-9], "damaged gzip"),
            (gzip.compress(idx(IMAGES), mtime=0)[:15] + b"\xff" * 9, "damaged gzip"),
            (bytes([0, 0, 8, 3]) + b"\xff" * 12, "header says"),
            (bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**12, 2**10, 2**10), "0 bytes of data, expected 4294967296"),
            (idx(IMAGES[:0]), "header says"),
        ],
    )
    def test_broken_files_are_refused(self, tmp_path: Path, content: bytes, message: str) -> None:
        path = write(tmp_path / "images", content)
        with pytest.raises(UserError, match=f"images: .*{message}"):
            load_images(DataConfig(kind="idx", path=str(path)))

    def test_files_that_do_not_belong_together(self, mnist: Path) -> None:
        images, labels = str(mnist / "train-images-idx3-ubyte.gz"), str(mnist / "t10k-labels-idx1-ubyte")
        with pytest.raises(UserError, match="2 labels, expected 6"):
            load_images(DataConfig(kind="idx", path=images, labels_path=labels))
        with pytest.raises(UserError, match=r"data\.split: found test"):
            load_images(DataConfig(kind="idx", path=images, split="test"))
        with pytest.raises(UserError, match=r"data\.labels_path"):
            load_images(DataConfig(kind="idx", path=str(mnist), labels_path=labels))
        with pytest.raises(UserError, match="cannot be read"):
            load_images(DataConfig(kind="idx", path="/nowhere"))
        (mnist / "t10k-labels-idx1-ubyte").unlink()
        with pytest.raises(UserError, match="found neither this file nor"):
            load_images(DataConfig(kind="idx", path=str(mnist), split="test"))

    def test_names_must_cover_the_labels_and_need_them(self, mnist: Path) -> None:
        with pytest.raises(UserError, match=r"data\.names: 2 names, expected at least 3: a label is 2"):
            load_images(DataConfig(kind="idx", path=str(mnist), names=("a", "b")))
        with pytest.raises(UserError, match="these images have no labels"):
            load_images(DataConfig(kind="idx", path=str(mnist / "train-images-idx3-ubyte.gz"), names=("a",)))


class TestDigits:
    def test_two_fixed_splits(self) -> None:
        train, test = (load_images(DataConfig(kind="digits", split=split)) for split in ("train", "test"))
        assert (len(train), len(test)) == (1200, 597) and train.shape == (1, 8, 8)
        assert int(train.images.min()) == 0 and int(train.images.max()) == 255
        assert train.labels is not None and len(train.labels.unique()) == 10 == train.num_classes
        again = load_images(DataConfig(kind="digits", limit=50))
        assert len(again) == 50 and torch.equal(again.images, load_images(DataConfig(kind="digits", limit=50)).images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "folder"}, "path: found nothing"),
        ({"kind": "digits", "path": "x"}, "path: found 'x', expected nothing: kind digits has no path"),
        ({"kind": "folder", "path": "x", "label_column": "y"}, "label_column: found 'y'"),
        ({"kind": "folder", "path": "x", "names": ("y",)}, "names: found"),
        ({"kind": "idx", "path": "x", "image_column": "y"}, "image_column: found 'y'"),
        ({"kind": "zip", "path": "x"}, "kind"),
        ({"kind": "digits", "limit": 0}, "limit"),
        ({"kind": "digits", "colour": 1}, "colour"),
    ],
)
def test_the_section_refuses_what_it_would_ignore(options: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataConfig(**options)
