"""Captions by template, from parquet columns and from a folder's metadata.jsonl."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unistep.data import DataConfig, load_images
from unistep.data.captions import columns_of, filled
from unistep.errors import UserError

NAMES, STYLES = ["fox", "boat", "sun"], ["old", "new", "old"]


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(file, format="PNG")
    return file.getvalue()


def parquet(tmp_path: Path, **columns: list[Any]) -> Path:
    pictures = [{"bytes": png(shade), "path": None} for shade in range(3)]
    table = pyarrow.table({"image": pictures, "name": NAMES, "style": STYLES} | columns)
    pyarrow.parquet.write_table(table, tmp_path / "p.parquet")
    return tmp_path / "p.parquet"


def folder(tmp_path: Path, rows: list[Any]) -> Path:
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for shade, name in enumerate(NAMES):
        (tmp_path / f"{name}.png").write_bytes(png(shade))
    return tmp_path


ROWS = [{"file_name": f"{n}.png", "name": n, "style": s} for n, s in zip(NAMES, STYLES, strict=True)]


def test_parquet_and_folder_give_the_same(tmp_path: Path) -> None:
    caption = "{name}, {style} style"
    (tmp_path / "pictures").mkdir()
    of_folder = DataConfig(kind="folder", path=str(folder(tmp_path / "pictures", ROWS)), caption=caption)
    of_parquet = DataConfig(kind="parquet", path=str(parquet(tmp_path)), caption=caption)
    for data in (load_images(of_folder), load_images(of_parquet)):
        assert data.captions == ("fox, old style", "boat, new style", "sun, old style")
        assert data.images[:, 0, 0, 0].tolist() == [0, 1, 2]
        assert data.labels is None


def test_a_caption_stays_with_its_picture(tmp_path: Path) -> None:
    config = DataConfig(kind="parquet", path=str(parquet(tmp_path)), caption="{name}", label_column="style", limit=2)
    data = load_images(config)
    shades = data.images[:, 0, 0, 0].tolist()
    assert data.captions == tuple(NAMES[shade] for shade in shades)
    turned = data.select(torch.tensor([1, 0]))
    assert turned.captions == data.captions[::-1] and turned.images[:, 0, 0, 0].tolist() == shades[::-1]
    assert data.select(slice(1)).captions == data.captions[:1]
    assert load_images(config.model_copy(update={"caption": None})).select(slice(1)).captions == ()


@given(st.lists(st.tuples(st.text(min_size=1).filter(str.strip), st.integers()), min_size=1, max_size=5))
def test_a_template_is_filled_and_braces_in_values_are_values(values: list[tuple[str, int]]) -> None:
    columns = {"a": [text for text, _ in values], "b": [number for _, number in values]}
    rows = range(len(values))
    assert filled("{a}", columns, rows) == tuple(text.strip() for text, _ in values)
    assert filled("-{b}:{a}.", columns, rows) == tuple(f"-{number}:{text}." for text, number in values)
    assert columns_of("-{b}:{a}.{b}") == ("b", "a")


@pytest.mark.parametrize("template", ["", "text", "{}", "{0}", "{a.b}", "{a!r}", "{a:>3}", "{a", "{a[0]}"])
def test_a_template_names_columns_and_nothing_else(template: str) -> None:
    with pytest.raises(UserError, match="^caption: found .* expected names of columns in braces"):
        columns_of(template)


@pytest.mark.parametrize(
    ("columns", "caption", "message"),
    [
        ({}, "{nothing}", "found no column 'nothing', expected one of image, name, style"),
        ({"style": ["a", " ", "b"]}, "{style}", "data.caption: row 1: found an empty caption"),
        ({"style": ["a", None, "b"]}, "{style}", "row 1 of column 'style' is empty"),
        ({"style": [["a"], ["b"], ["c"]]}, "{style}", r"row 0: found \['a'\] in 'style', expected a text or a number"),
    ],
)
def test_columns_that_make_no_caption(
    tmp_path: Path, columns: dict[str, list[Any]], caption: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load_images(DataConfig(kind="parquet", path=str(parquet(tmp_path, **columns)), caption=caption))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "metadata.jsonl: found no rows"),
        ([{"file_name": "cat.png", "name": "cat"}], "cat.png: not found, expected it: metadata.jsonl lists it"),
        ([ROWS[0], {"name": "cat"}], "metadata.jsonl: row 2: found no 'file_name'"),
        ([ROWS[0], {"file_name": "fox.png"}], "metadata.jsonl: row 2: found no 'name'"),
        ([3], "metadata.jsonl: row 1: found no 'file_name'"),
    ],
)
def test_lists_that_make_no_captions(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_images(DataConfig(kind="folder", path=str(folder(tmp_path, rows)), caption="{name}"))


def test_a_folder_without_a_list(tmp_path: Path) -> None:
    (tmp_path / "fox.png").write_bytes(png(0))
    message = r"data.caption: found \{name\} and \{style\}, expected \{stem\}, \{folder\} or \{text\}"
    with pytest.raises(UserError, match=message):
        load_images(DataConfig(kind="folder", path=str(tmp_path), caption="{name} {style}"))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"caf\xe9\n", "metadata.jsonl: no UTF-8 text"), (b"{\n", "metadata.jsonl: row 1: no readable JSON")],
)
def test_lists_that_cannot_be_read(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "metadata.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_images(DataConfig(kind="folder", path=str(tmp_path), caption="{name}"))


def test_kinds_without_columns_have_no_captions() -> None:
    with pytest.raises(ValueError, match="caption: found '{name}', expected nothing: kind digits has no caption"):
        DataConfig(kind="digits", caption="{name}")
