"""Pictures of a dataset of the hub: what the library gives, a stand-in for it, and what cannot be read."""

import io
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from unistep.data import DataConfig, load_images
from unistep.errors import UserError

NAME = "someone/pictures"
TEXTS, STYLES, KINDS = ["fox", "boat", "sun"], ["old", "new", "old"], [1, 0, 1]


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(file, format="PNG")
    return file.getvalue()


@dataclass(frozen=True)
class Pictures:
    """The library's kind of column for pictures."""

    decode: bool = True


class Rows:
    """A split as the library gives it; pictures that are not cast come decoded, which is not what is wanted."""

    def __init__(self, columns: dict[str, list[Any]], features: dict[str, Any]):
        self.columns, self.features, self.column_names = columns, features, list(columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key: str | int) -> Any:
        if isinstance(key, str):
            return self.columns[key]
        row = {name: values[key] for name, values in self.columns.items()}
        if self.features.get("image") == Pictures(decode=True):
            row["image"] = Image.open(io.BytesIO(row["image"]["bytes"]))
        return row

    def select_columns(self, names: list[str]) -> "Rows":
        return Rows({name: self.columns[name] for name in names}, {name: self.features[name] for name in names})

    def cast_column(self, name: str, feature: Pictures) -> "Rows":
        return Rows(self.columns, {**self.features, name: feature})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    """A stand-in for the library; what it was asked for. The last picture lies in a file of its own."""
    (tmp_path / "2.png").write_bytes(png(2))
    pictures = [{"bytes": png(0), "path": "0.png"}, {"bytes": png(1), "path": None}]
    pictures += [{"bytes": None, "path": str(tmp_path / "2.png")}]
    columns = {"image": pictures, "text": TEXTS, "style": STYLES, "kind": KINDS}
    features = {"image": Pictures(), "text": None, "style": None, "kind": SimpleNamespace(names=["dull", "bright"])}
    calls: list[tuple[Any, ...]] = []

    def load_dataset(name: str, subset: str | None, *, split: str) -> Rows:
        calls.append((name, subset, split))
        if name != NAME:
            raise ConnectionError(f"Couldn't reach '{name}'\non the Hub")
        return Rows(columns if split == "train" else {column: [] for column in columns}, features)

    library = SimpleNamespace(load_dataset=load_dataset, Image=Pictures)
    monkeypatch.setitem(sys.modules, "datasets", library)
    return calls


def hub(**changes: Any) -> DataConfig:
    return DataConfig(kind="datasets", path=NAME, **changes)


def test_pictures_labels_and_captions(asked: list[tuple[Any, ...]]) -> None:
    data = load_images(hub(label_column="kind", caption="{text}, {style} style", subset="small"))
    assert asked == [(NAME, "small", "train")]
    assert data.images.shape == (3, 3, 4, 4) and data.images[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert data.labels is not None and data.labels.tolist() == KINDS and data.names == ("dull", "bright")
    assert data.captions == ("fox, old style", "boat, new style", "sun, old style")


def test_a_picture_keeps_its_label_and_caption_where_not_all_are_drawn(asked: list[tuple[Any, ...]]) -> None:
    data = load_images(hub(label_column="style", caption="{text}", limit=2))
    shades = data.images[:, 0, 0, 0].tolist()
    assert len(shades) == 2 and data.captions == tuple(TEXTS[shade] for shade in shades)
    assert data.labels is not None and [data.names[k] for k in data.labels] == [STYLES[shade] for shade in shades]


def test_no_labels_and_names_of_ones_own(asked: list[tuple[Any, ...]]) -> None:
    assert load_images(hub()).labels is None and load_images(hub()).captions == ()
    assert load_images(hub(label_column="kind", names=("a", "b"))).names == ("a", "b")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_column": "img"}, f"{NAME}, train: found no column 'img', expected one of image, text, style, kind"),
        ({"label_column": "x"}, "found no column 'x'"),
        ({"caption": "{prompt}"}, "found no column 'prompt'"),
        ({"split": "test"}, f"{NAME}, test: found no rows"),
        ({"image_column": "text"}, "row 0: column 'text' holds no picture"),
        ({"path": "no/body"}, "data.path: cannot read the dataset no/body, split train: Couldn't reach 'no/body' on"),
    ],
)
def test_what_cannot_be_read(asked: list[tuple[Any, ...]], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_images(hub().model_copy(update=changes))
    assert "\n" not in str(caught.value)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"^datasets: not installed .* pip install 'unistep\[datasets\]'"):
        load_images(hub())


def test_a_dataset_has_a_name_and_no_keys_of_others() -> None:
    with pytest.raises(ValidationError, match="path: found nothing, expected OWNER/NAME on the hub"):
        DataConfig(kind="datasets")
    with pytest.raises(ValidationError, match="kind folder has no subset"):
        DataConfig(kind="folder", path="x", subset="small")
    assert hub().place is None and DataConfig(kind="folder", path="x").place == Path("x")


@pytest.mark.filterwarnings("ignore")  # of its own
def test_the_library_itself_reads_a_folder_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is installed."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    pytest.importorskip("datasets")
    for shade, kind in enumerate(("fox", "fox", "boat")):
        file = tmp_path / "pictures" / "train" / kind / f"{shade}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(shade))
    data = load_images(DataConfig(kind="datasets", path=str(tmp_path / "pictures"), label_column="label"))
    assert data.images[:, 0, 0, 0].tolist() == [2, 0, 1] and data.names == ("boat", "fox")
    assert data.labels is not None and data.labels.tolist() == [0, 1, 1]
    with pytest.raises(UserError, match='split test: Unknown split "test"'):
        load_images(DataConfig(kind="datasets", path=str(tmp_path / "pictures"), split="test"))
