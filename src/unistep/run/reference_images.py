"""Real images for a judge that knows none: features of the recipe's data, kept in the run, or published statistics."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from unistep.data import ImageDataset, load_images
from unistep.data.config import DataConfig
from unistep.errors import UserError, rename_section
from unistep.evaluation.extractors.network_file import read_file
from unistep.evaluation.extractors.pretrained import FeatureJudge
from unistep.evaluation.reference import (
    ReferenceFeatures,
    Split,
    pack_reference,
    reference_from_images,
    reference_from_statistics,
    unpack_reference,
)
from unistep.io.atomic import atomic_write
from unistep.io.progress import show_progress
from unistep.recipes.sections import EvaluationConfig
from unistep.run.console import Talk
from unistep.training.distributed import on_rank_zero

FORMAT = "unistep-reference/1"
REAL = "evaluation.real"
SPLITS: tuple[Split, ...] = ("train", "test")


def splits_of(evaluation: EvaluationConfig) -> dict[Split, DataConfig]:
    """The images that an evaluation compares with, and those it holds out; nothing where it names none."""
    real = evaluation.real
    return {} if real is None else {split: real.model_copy(update={"split": split}) for split in SPLITS}


def load_real(data: DataConfig) -> ImageDataset:
    """The images of `evaluation.real`.

    Raises:
        UserError: for mistakes in them, named by the section that has them.
    """
    with rename_section("data", REAL):
        return load_images(data)


def with_references(
    judge: FeatureJudge,
    statistics: str | None,
    real: Mapping[Split, DataConfig],
    folder: Path,
    sample: Tensor,
    say: Talk,
    recompute: bool = False,
) -> FeatureJudge:
    """The judge with references to real images.

    Args:
        judge: without references.
        statistics: a file of moments; None = look at images.
        real: the images, where there are no statistics.
        folder: of the run; features of real images are computed once per judge and data and kept in it.
        sample: one image uint8 [1, c, h, w] of those that will be judged: the real ones must be of its shape.
        say: told what takes time.
        recompute: look at the real images anew.

    Raises:
        UserError: for statistics of other features, images of another shape, or too few of them.
    """
    if statistics is not None:
        return replace(judge, references={"train": published(judge, Path(statistics), sample)})
    seen = {split: features_of(judge, data, folder, sample, say, recompute) for split, data in real.items()}
    return replace(judge, references=seen)


def published(judge: FeatureJudge, path: Path, sample: Tensor) -> ReferenceFeatures:
    """Published statistics, which must be of as many features as the judge has."""
    reference = reference_from_statistics(path)
    found, wanted = len(reference.mean), judge.features(sample)[0].shape[1]
    if found != wanted:
        raise UserError(
            f"evaluation.reference: {path}: found statistics of {found} features, expected {wanted}, as many as "
            f"{judge.title} has"
        )
    return reference


def features_of(
    judge: FeatureJudge, data: DataConfig, folder: Path, sample: Tensor, say: Talk, recompute: bool = False
) -> ReferenceFeatures:
    """Features of one set of real images, from `folder/reference` if they are there, else computed and kept there.

    The file's name follows from judge and data as the recipe spells it; files that change under the same name are
    looked at anew with `recompute`.
    """
    identity = {"judge": judge.sha256, "data": data.model_dump(mode="json")}
    path = folder / "reference" / f"{data.split or 'all'}-{key_of(data, judge.sha256)}.safetensors"

    def compute() -> None:
        if recompute or not path.is_file():
            reference = look(judge, data, sample, say)
            tensors = {f"images.{name}": value for name, value in pack_reference(reference).items()}
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, save(tensors, {"config": json.dumps({"format": FORMAT, **identity}, sort_keys=True)}))

    on_rank_zero(compute)
    _, tensors, _ = read_file(path, FORMAT)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return unpack_reference(tensors, "images", digest, source=f"{data.path or data.kind}, {data.split or 'all'}")


def key_of(data: DataConfig, seen_by: str | int) -> str:
    """A short name for images as the recipe spells them, and what looks at them."""
    return hashlib.sha256(json.dumps([seen_by, data.model_dump(mode="json")]).encode()).hexdigest()[:16]


def look(judge: FeatureJudge, data: DataConfig, sample: Tensor, say: Talk) -> ReferenceFeatures:
    """Shows every image to the judge.

    Raises:
        UserError: for images of another shape than the sample's, or fewer than two.
    """
    images, judged = load_real(data), tuple(sample.shape[1:])
    if images.shape != judged:
        raise UserError(
            f"evaluation.real: found images of {list(images.shape)}, expected {list(judged)}, as those that "
            f"are judged; set {REAL}.size and {REAL}.channels, or name other images"
        )
    if len(images) < 2:
        raise UserError(f"evaluation.real: found {len(images)} image ({data.split or 'all'}), expected at least 2")
    say(f"looking at {len(images):,} real images through {judge.title}")
    with show_progress("looking at real images", len(images), say.shows) as update:
        return reference_from_images(lambda batch: judge.features(batch)[0], images, on_progress=update)
