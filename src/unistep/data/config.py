"""Where training images come from: the `data` section of a recipe."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Kind = Literal["folder", "idx", "parquet", "datasets", "cifar", "digits"]
KEYS: dict[Kind, frozenset[str]] = {
    "folder": frozenset({"path", "caption"}),
    "idx": frozenset({"path", "labels_path", "names"}),
    "parquet": frozenset({"path", "image_column", "label_column", "names", "caption"}),
    "datasets": frozenset({"path", "subset", "image_column", "label_column", "names", "caption"}),
    "cifar": frozenset({"path", "names"}),
    "digits": frozenset({"names"}),
}
SPECIFIC = frozenset().union(*KEYS.values())


class DataConfig(BaseModel):
    """A set of images.

    Attributes:
        kind: folder (image files; a sub-folder is a class), idx (MNIST's format), parquet (image bytes), datasets (a
            dataset of the hub), cifar (CIFAR-10's batches, binary or python) or digits (scikit-learn's, bundled).
        path: a file or a folder; for datasets OWNER/NAME; none for digits.
        split: `train` or `test`, where the place has both: MNIST's and CIFAR's file names, parquet files whose name
            begins with it, a sub-folder of that name for image files, and digits (1,200 and 597). Not given means all
            there is, except for idx, cifar and digits in a folder and for datasets, where it means train.
        subset: datasets only: which of its configurations, where it has several.
        labels_path: idx only, beside a single image file: the file of labels.
        image_column: parquet and datasets: binary, or a struct with `bytes`.
        label_column: parquet and datasets: whole numbers or text; not given means without labels.
        caption: parquet, datasets, or a folder with `metadata.jsonl`: the text that belongs to a picture, a template
            of columns such as `'{text}, {style} style'`, or `'{text}'` for one as it is; not given means without
            captions.
        names: readable names of the classes 0..k-1, where the files have none (folders have).
        limit: use this many images, drawn by a fixed seed.
        size: side of the square images: the middle is cut out and resized. Needed if the images differ in size.
        channels: 1 (grey) or 3 (RGB); not given means as the first image is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    path: str | None = None
    split: Literal["train", "test"] | None = None
    subset: str | None = None
    labels_path: str | None = None
    image_column: str = "image"
    label_column: str | None = None
    caption: str | None = None
    names: tuple[str, ...] = ()
    limit: int | None = Field(default=None, ge=1)
    size: int | None = Field(default=None, ge=4, le=4096)
    channels: Literal[1, 3] | None = None

    @model_validator(mode="after")
    def check(self) -> "DataConfig":
        """A path unless the data is bundled, and no key that the kind ignores."""
        defaults = type(self).model_fields
        for key in sorted(SPECIFIC - KEYS[self.kind]):
            if (value := getattr(self, key)) != defaults[key].default:
                raise ValueError(f"{key}: found {value!r}, expected nothing: kind {self.kind} has no {key}")
        if self.path is None and "path" in KEYS[self.kind]:
            place = "OWNER/NAME on the hub" if self.kind == "datasets" else "a file or folder"
            raise ValueError(f"path: found nothing, expected {place}: kind {self.kind} needs one")
        return self

    @property
    def place(self) -> Path | None:
        """What has to be on this machine before anything is read: nothing for a dataset, which is fetched."""
        return None if self.path is None or self.kind == "datasets" else Path(self.path)
