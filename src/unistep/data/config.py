"""Where training images come from: the `data` section of a recipe."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from PIL import ImageColor
from pydantic import BaseModel, ConfigDict, Field, model_validator

from unistep.data.captions import columns_of
from unistep.errors import Mistakes

Kind = Literal["folder", "idx", "parquet", "datasets", "cifar", "digits"]
KEYS: dict[Kind, frozenset[str]] = {
    "folder": frozenset({"path", "caption", "background"}),
    "idx": frozenset({"path", "labels_path", "names"}),
    "parquet": frozenset({"path", "image_column", "label_column", "names", "caption", "background"}),
    "datasets": frozenset({"path", "subset", "image_column", "label_column", "names", "caption", "background"}),
    "cifar": frozenset({"path", "names"}),
    "digits": frozenset({"names"}),
}
SPECIFIC = frozenset().union(*KEYS.values())


class DataConfig(BaseModel):
    """A set of images.

    Attributes:
        kind: folder (image files), idx (MNIST's format), parquet (image bytes), datasets (a
            dataset of the hub), cifar (CIFAR-10's batches, binary or python) or digits (scikit-learn's, bundled).
        path: a file or a folder; for datasets OWNER/NAME; none for digits.
        split: `train` or `test`, where the place has both: MNIST's and CIFAR's file names, parquet files whose name
            begins with it, a sub-folder of that name for image files, and digits (1,200 and 597). Not given means all
            there is, except for idx, cifar and digits in a folder and for datasets, where it means train.
        subset: datasets only: which of its configurations, where it has several.
        labels_path: idx only, beside a single image file: the file of labels.
        image_column: parquet and datasets: binary, or a struct with `bytes`.
        label_column: parquet and datasets: whole numbers or text; not given means without labels.
        labels: `none` leaves out labels that there are. For image files: `folders` means that each sub-folder is a
            class; `auto` (the default) means the same where there are sub-folders and no captions, and no labels
            elsewhere.
        caption: parquet, datasets and image files: the text that belongs to a picture, a template such as `'{text},
            {style} style'`. Its names are columns; for image files `{stem}` (the file's name without its ending),
            `{folder}` (the sub-folder it is in), and the fields of `metadata.jsonl` or, without this file, `{text}` (a
            text file beside the picture, `a.txt` for `a.png`). Not given means without captions.
        background: parquet, datasets and image files: what transparent parts become, `white`, another name of a color
            or `#rrggbb`.
        names: readable names of the classes 0..k-1, where the files have none (folders have).
        limit: use this many images, drawn by a fixed seed.
        size: side of the square images: the middle is cut out and resized. Needed if the images differ in size.
        channels: 1 (grey) or 3 (RGB); not given means as the first image is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    path: Annotated[str, Field(min_length=1)] | None = None
    split: Literal["train", "test"] | None = None
    subset: str | None = None
    labels_path: Annotated[str, Field(min_length=1)] | None = None
    image_column: str = "image"
    label_column: str | None = None
    labels: Literal["auto", "folders", "none"] = "auto"
    caption: str | None = None
    background: str = "white"
    names: tuple[str, ...] = ()
    limit: int | None = Field(default=None, ge=1, le=10**9)
    size: int | None = Field(default=None, ge=4, le=4096)
    channels: Literal[1, 3] | None = None

    @model_validator(mode="after")
    def check(self) -> "DataConfig":
        """A path unless the data is bundled, no key that the kind ignores, and values that can be read."""
        found = Mistakes()
        found.add(*self.mistakes())
        if self.caption is not None:
            with found.collect():
                columns_of(self.caption)
        found.require_none()
        return self

    def mistakes(self) -> Iterator[str]:
        """What does not go together, a message each."""
        defaults = type(self).model_fields
        for key in sorted(SPECIFIC - KEYS[self.kind]):
            if (value := getattr(self, key)) != defaults[key].default:
                yield f"{key}: found {value!r}, expected nothing: kind {self.kind} has no {key}"
        if self.path is None and "path" in KEYS[self.kind]:
            place = "OWNER/NAME on the hub" if self.kind == "datasets" else "a file or folder"
            yield f"path: found nothing, expected {place}: kind {self.kind} needs one"
        if self.labels == "folders" and self.kind != "folder":
            yield f"labels: found 'folders', expected auto or none: kind {self.kind} has no folders of classes"
        for key in ("label_column", "labels_path", "names") if self.labels == "none" else ():
            if value := getattr(self, key):
                yield f"{key}: found {value!r} with labels none, expected nothing"
        if not (re.fullmatch("#[0-9a-fA-F]{6}", self.background) or self.background.lower() in ImageColor.colormap):
            yield f"background: found {self.background!r}, expected the name of a color, such as white, or '#rrggbb'"

    @property
    def place(self) -> Path | None:
        """What has to be on this machine before anything is read: nothing for a dataset, which is fetched."""
        return None if self.path is None or self.kind == "datasets" else Path(self.path)
