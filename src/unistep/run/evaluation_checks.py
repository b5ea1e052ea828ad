"""Checks of an evaluation before anything is made that it would judge: its judge, images, samples, prompts and rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unistep.assets import embedded_folder
from unistep.data import ImageDataset, load_images
from unistep.errors import Mistakes, UserError, rename_section
from unistep.evaluation.extractors.features import load_judge
from unistep.evaluation.extractors.network_file import JudgeNetwork
from unistep.evaluation.extractors.pretrained import FeatureJudge
from unistep.evaluation.extractors.train import hold_out, require_judgeable
from unistep.evaluation.measure import require_enough_samples
from unistep.evaluation.metrics.points import FEWEST
from unistep.evaluation.reference import ONE_BY_ONE, ReferenceFeatures
from unistep.recipes.load import recipe_of
from unistep.recipes.schema import DistillRecipe, TeachRecipe
from unistep.recipes.sections import EvaluationConfig
from unistep.run.evaluation_protocol import alignment_of, apply_protocol
from unistep.run.extractors import AnyJudge, judge_of, point_reference, require_images_for_judge
from unistep.run.reference_images import REAL, load_real, published, splits_of
from unistep.teachers.checkpoint import read_generator
from unistep.teachers.teacher import Teacher


def check_taught_judge(recipe: TeachRecipe, data: ImageDataset, mistakes: Mistakes) -> None:
    """Whether the samples of a teacher in the making can be judged."""
    evaluation, sample = recipe.evaluation, torch.zeros(1, *data.shape, dtype=torch.uint8)
    if evaluation.judge is None:
        return
    with mistakes.collect():
        if evaluation.judge == "train":
            reference = reference_of_kept(data)
        else:
            judge = judge_of(evaluation.judge)
            reference = reference_of_named(judge, evaluation, sample, data)
        require_enough_samples(reference, None, evaluation.samples_during_training)


def reference_of_trained(recipe: DistillRecipe, sample: Tensor, folder: Path) -> ReferenceFeatures:
    """What a judge that is yet to be trained will compare with, in numbers of images alone.

    Raises:
        UserError: for images that no judge can be trained on, or none at all.
    """
    evaluation, teach = recipe.evaluation, recipe.teacher.teach
    require_images_for_judge(evaluation, teach)
    if evaluation.real is not None:
        train, test = (load_real(split) for split in splits_of(evaluation).values())
        for images in (train, test):
            require_shape(images, sample)
        with rename_section("data", REAL):
            require_judgeable(train.images, train.labels)
        return counted(train, JUDGE_FEATURES)
    trained = folder / "teacher" / "judge"
    if (trained / "judge.safetensors").is_file():
        judge = load_judge(trained)
        judge.features(sample)
        return judge.reference("train")
    assert teach is not None
    teaching = recipe_of(TeachRecipe, teach)
    if teaching.evaluation.judge != "train":
        raise UserError(
            f"evaluation.judge: found train, but recipe {teach} trains no judge; set evaluation.real, or name a folder "
            "or embedded:NAME"
        )
    return reference_of_kept(load_images(teaching.data))


JUDGE_FEATURES = JudgeNetwork(1, 8, 2).config["num_features"]


def reference_of_kept(data: ImageDataset) -> ReferenceFeatures:
    """What a judge compares with that is trained on the images themselves, some of which it holds out."""
    labels = require_judgeable(data.images, data.labels)
    (kept, kept_labels), _ = hold_out(data.images, labels)
    return stand_in(len(kept), JUDGE_FEATURES, kept_labels)


def reference_of_named(
    judge: AnyJudge, evaluation: EvaluationConfig, sample: Tensor, data: ImageDataset | None = None
) -> ReferenceFeatures:
    """What a named judge compares with: its own images, published moments, or the recipe's images in numbers alone.

    Raises:
        UserError: for images that it cannot see, statistics of other features, or real images of another shape.
    """
    width = judge.features(sample)[0].shape[1]
    if not isinstance(judge, FeatureJudge):
        return judge.reference("train")
    if evaluation.reference is not None:
        return published(judge, Path(evaluation.reference), sample)
    splits = [load_real(split) for split in splits_of(evaluation).values()] or [data]
    for images in splits:
        if images is not None:
            require_shape(images, sample)
    train = splits[0]
    if train is None:
        raise UserError(f"evaluation.real: found nothing, expected a section: {evaluation.judge} knows no images")
    return counted(train, width)


def require_shape(images: ImageDataset, sample: Tensor) -> None:
    """Refuses real images of another shape than the samples, or fewer than two."""
    if images.shape != tuple(sample.shape[1:]):
        raise UserError(
            f"evaluation.real: found images of {list(images.shape)}, expected {list(sample.shape[1:])}, as those that "
            f"are judged; set {REAL}.size and {REAL}.channels, or name other images"
        )
    if len(images) < 2:
        raise UserError(f"evaluation.real: found {len(images)} image, expected at least 2")


def counted(images: ImageDataset, width: int) -> ReferenceFeatures:
    """A reference of so many images and features, without their numbers."""
    labels = torch.full((len(images),), -1) if images.labels is None else images.labels
    return stand_in(len(images), width, labels)


def stand_in(count: int, width: int, labels: Tensor) -> ReferenceFeatures:
    """See `counted`."""
    features = torch.zeros(1, 1).expand(min(count, ONE_BY_ONE), width)
    return ReferenceFeatures(features, labels[:ONE_BY_ONE], np.zeros(width), np.zeros((0, 0)), count)


def check_evaluation(
    recipe: DistillRecipe, teacher: Teacher, folder: Path, device: torch.device, mistakes: Mistakes
) -> None:
    """Whether samples of a distillation can be judged as its recipe says; nothing is trained, sampled or written.

    Args:
        recipe: as resolved.
        teacher: the recipe's, or its shape.
        folder: of the run, where a judge may be already.
        device: where prompts are encoded.
        mistakes: where what is wrong is collected.
    """
    evaluation, judged = recipe.evaluation, teacher
    with mistakes.collect():
        judged = apply_protocol(recipe, teacher, device)
        with mistakes.collect():
            alignment_of(evaluation, judged, torch.device("cpu"))
    for name, spec in evaluation.beside.items():
        with mistakes.collect(f"evaluation.beside.{name}"):
            require_alike(name, read_generator(generator_folder(spec))[1], teacher)
    during = deciding_samples(recipe)
    if evaluation.judge is None:
        check_points(evaluation, during, teacher, mistakes)
        return
    with mistakes.collect():
        sample = judged.codec.decode(torch.zeros(1, *judged.shape))
        if evaluation.judge == "train":
            reference = reference_of_trained(recipe, sample, folder)
        else:
            reference = reference_of_named(judge_of(evaluation.judge), evaluation, sample)
        require_enough_samples(reference, evaluation.samples, during)


def deciding_samples(recipe: DistillRecipe) -> int | None:
    """Samples of which a distance decides during the training or between weights after it; None where nothing does."""
    compared = recipe.generator.weights == "best" and recipe.training.ema is not None
    return recipe.evaluation.samples_during_training if recipe.training.evaluate_every or compared else None


def check_points(evaluation: EvaluationConfig, during: int | None, teacher: Teacher, mistakes: Mistakes) -> None:
    """Whether there are enough points, of a teacher whose exact samples are known."""
    if point_reference(teacher, 1) is None:
        return
    for setting, found in (("samples", evaluation.samples), ("samples_during_training", during)):
        if found is not None and found < FEWEST:
            mistakes.add(f"evaluation.{setting}: found {found}, expected at least {FEWEST}")


def generator_folder(spec: str) -> Path:
    """The place of a generator beside: a run, its generator's folder, an export to safetensors, or
    `embedded:NAME/FOLDER`."""
    kind, _, place = spec.partition(":")
    if kind != "embedded":
        return Path(spec)
    asset, _, name = place.partition("/")
    return embedded_folder(asset) / name


def require_alike(name: str, config: Mapping[str, Any], teacher: Teacher) -> None:
    """Refuses a generator beside whose samples are not those of the teacher.

    Raises:
        UserError: naming the row.
    """
    found, expected = list(config.get("shape", ())), list(teacher.shape)
    if found != expected:
        raise UserError(
            f"evaluation.beside.{name}: found a generator of shape {found}, expected the teacher's {expected}"
        )
