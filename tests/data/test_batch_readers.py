"""CIFAR batches and parquet files: what they give, and what is refused; a hostile pickle runs nothing."""

import builtins
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from unistep.data import DataConfig, load_images
from unistep.data.cifar import ARRAYS_ONLY
from unistep.errors import UserError
from unistep.io.pickles import read_pickle

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)
LABELS = [3, 0, 9, 3]


def binary() -> bytes:
    return np.concatenate([np.array(LABELS, np.uint8)[:, None], PIXELS], 1).tobytes()


def python(**changes: object) -> bytes:
    return pickle.dumps({"data": PIXELS, "labels": LABELS, "batch_label": b"batch", **changes}, protocol=2)


def load(path: Path, **options: object) -> object:
    return load_images(DataConfig(kind="cifar", path=str(path), **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".bin", ""])
def test_cifar_folder(tmp_path: Path, suffix: str) -> None:
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        (tmp_path / f"{name}{suffix}").write_bytes(binary() if suffix else python())
    train = load_images(DataConfig(kind="cifar", path=str(tmp_path)))
    test = load_images(DataConfig(kind="cifar", path=str(tmp_path), split="test"))
    assert (len(train), len(test), train.shape) == (20, 4, (3, 32, 32)) and test.labels is not None
    assert test.labels.tolist() == LABELS and test.names[3] == "cat"
    assert torch.equal(test.images.flatten(1), torch.from_numpy(PIXELS))
    (tmp_path / f"data_batch_3{suffix}").unlink()
    with pytest.raises(UserError, match=f"data_batch_3{suffix}: not found"):
        load(tmp_path)


def test_python_2_pickles_are_read() -> None:
    """Keys as bytes, which is how CIFAR's own files come."""
    assert read_pickle(b"(dp0\nS'a'\np1\nI7\ns.", "x", ARRAYS_ONLY) == {b"a": 7}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("b.bin", binary()[:-1], "12291 bytes, expected a multiple of 3073"),
        ("b.bin", b"", "0 bytes"),
        ("b.bin", b"\x0a" + binary()[1:], "found label 10, expected 0 to 9"),
        ("b", python()[:-400], "no readable pickle"),
        ("b", b"", "no readable pickle"),
        ("b", pickle.dumps([1]), "a pickle of list, expected a dictionary"),
        ("b", python(data=None), "no NumPy array of unsigned bytes"),
        ("b", python(data=PIXELS.astype(np.int16)), "no NumPy array of unsigned bytes"),
        ("b", python(data=np.array([[object()]])), r"asks for \w+\.object"),
        ("b", python(data=PIXELS[:, :9]), r"data of shape \[4, 9\]"),
        ("b", python(labels=[1, 2]), "no list of 4 whole numbers"),
        ("b", python(labels=["1"] * 4), "no list of 4 whole numbers"),
        ("b", python(labels=[0, 0, 0, 2**70]), "found label|no list|no readable"),
        ("b", python(labels=[0, 0, 0, -1]), "found label"),
    ],
)
def test_broken_batches_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        load(tmp_path / name)


def test_places_without_batches(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found no CIFAR-10 batch"):
        load(tmp_path)
    (tmp_path / "b.bin").write_bytes(binary())
    with pytest.raises(UserError, match=r"data\.split"):
        load(tmp_path / "b.bin", split="test")


class Hostile:
    def __init__(self, call: object, *args: object) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> tuple:
        return self.call, self.args


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("call", [os.system, builtins.eval, builtins.getattr, np.load, pickle.loads, torch.load])
def test_a_hostile_pickle_is_refused_by_name(tmp_path: Path, call: object, protocol: int) -> None:
    trace = tmp_path / "trace"
    (tmp_path / "b").write_bytes(pickle.dumps({"data": Hostile(call, f"touch {trace}")}, protocol))
    with pytest.raises(UserError, match=rf"b: the pickle asks for \w+.*{call.__name__}.*nothing in it was run"):  # type: ignore[attr-defined]
        load(tmp_path / "b")
    assert not trace.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cnumpy\nndarray\n(I1\nI2\ntR}(Vstate\nI1\nub.",  # state of another kind: kept, never acted on
        b"cnumpy\nndarray\n}(V__init__\nI1\nub.",  # tries to change the stand-in class itself
        b"c_codecs\nencode\n(Vx\nVzlib\ntR.",  # another codec
        b"cnumpy\ndtype\n(tR(I1\nI2\ntb.",
        b"\x80\x04\x8e" + b"\xff" * 8 + b".",  # a string longer than memory
        b"(" * 5000,
        b"\x80\x02\x82\x01.",  # extension registry
        b"Pid\n.",  # persistent id
    ],
)
def test_odd_pickles_do_no_harm(content: bytes) -> None:
    before = {name: id(value) for name, value in vars(np.ndarray).items()}
    try:
        read_pickle(content, "x", ARRAYS_ONLY)
    except UserError as error:
        assert str(error).startswith("x: ")
    assert before == {name: id(value) for name, value in vars(np.ndarray).items()}


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), value).save(file, "PNG")
    return file.getvalue()


def parquet(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def load_parquet_images(path: Path, **options: object) -> object:
    return load_images(DataConfig(kind="parquet", path=str(path), **options))  # type: ignore[arg-type]


def test_parquet_with_structs_and_text_labels(tmp_path: Path) -> None:
    pictures = [{"bytes": png(v), "path": f"{v}.png"} for v in (10, 20, 30)]
    path = parquet(tmp_path / "x.parquet", image=pictures, group=["b", "a", "b"])
    data = load_images(DataConfig(kind="parquet", path=str(path), label_column="group"))
    assert data.labels is not None and data.labels.tolist() == [1, 0, 1] and data.names == ("a", "b")
    assert data.images[:, 0, 0, 0].tolist() == [10, 20, 30]
    assert load_images(DataConfig(kind="parquet", path=str(path))).labels is None
    renamed = load_images(DataConfig(kind="parquet", path=str(path), label_column="group", names=("b", "a")))
    assert renamed.labels is not None and renamed.labels.tolist() == [0, 1, 0]


def test_parquet_folders_with_binary_columns_and_numbers(tmp_path: Path) -> None:
    for name, values in (("train-0", [1, 2]), ("train-1", [3, 4]), ("test-0", [5])):
        parquet(tmp_path / f"{name}.parquet", img=[png(v) for v in values], label=[v % 3 for v in values])
    options = dict(kind="parquet", path=str(tmp_path), image_column="img", label_column="label")
    train = load_images(DataConfig(**options, split="train"))  # type: ignore[arg-type]
    assert train.labels is not None and train.labels.tolist() == [1, 2, 0, 1] and train.names == ("0", "1", "2")
    part = load_images(DataConfig(**options, limit=2))  # type: ignore[arg-type]
    assert part.labels is not None
    assert [v % 3 for v in part.images[:, 0, 0, 0].tolist()] == part.labels.tolist()


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"picture": [png(1)]}, {}, "found no column 'image', expected one of picture"),
        ({"image": [png(1), None]}, {}, "row 1 of column 'image' is empty"),
        ({"image": [1]}, {}, "holds no picture bytes"),
        ({"image": [{"path": "x"}]}, {}, "holds no picture bytes"),
        ({"image": [b"text"]}, {}, r"x\.parquet, row 0: no image"),
        ({"image": [png(1)], "y": [-1]}, {"label_column": "y"}, "found label -1"),
        (
            {"image": [png(1)] * 2, "y": [0, 2]},
            {"label_column": "y"},
            "found labels up to 2 in 'y' but none 1",
        ),
        (
            {"image": [png(1)], "y": [10**12]},
            {"label_column": "y"},
            "labels up to 1000000000000 in 'y' but none 0",
        ),
        (
            {"image": [png(1)], "y": pa.array([2**63], pa.uint64())},
            {"label_column": "y"},
            "labels up to 9223372036",
        ),
        (
            {"image": [png(1)], "y": pa.array([2**63], pa.uint64())},
            {"label_column": "y", "names": ("a",)},
            "data.names: 1 names, expected at least 9223372036854775809",
        ),
        ({"image": [png(1)], "y": [0.5]}, {"label_column": "y"}, "holds float, expected whole numbers or text"),
        ({"image": [png(1)], "y": ["a"]}, {"label_column": "y", "names": ("b",)}, "label 'a' of 'y' is not among b"),
        ({"image": pa.array([], pa.binary())}, {}, "found no rows"),
        ({"image": [png(1)]}, {"split": "train"}, r"data\.split"),
    ],
)
def test_parquet_mistakes_are_named(tmp_path: Path, columns: dict, options: dict, message: str) -> None:
    path = parquet(tmp_path / "x.parquet", **columns)
    with pytest.raises(UserError, match=message):
        load_parquet_images(path, **options)


def test_a_damaged_page_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": [png(v) for v in range(9)]}), path, compression="gzip", use_dictionary=False)
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(60) + content[64:])
    with pytest.raises(UserError, match=r"x\.parquet: no readable parquet file"):
        load_parquet_images(path)


def test_named_classes_may_be_without_an_image(tmp_path: Path) -> None:
    path = parquet(tmp_path / "x.parquet", image=[png(1), png(2)], y=[0, 2])
    data = load_images(DataConfig(kind="parquet", path=str(path), label_column="y", names=("a", "b", "c")))
    assert data.labels is not None and data.labels.tolist() == [0, 2]


def test_places_without_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="found no parquet file"):
        load_parquet_images(tmp_path)
    (tmp_path / "x.parquet").write_bytes(b"PAR1 but not really PAR1")
    with pytest.raises(UserError, match="no readable parquet file"):
        load_parquet_images(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'unistep\[parquet\]'"):
        load_parquet_images(tmp_path)
