"""What a judge will compare with, in numbers of images alone: for checks before a judge is trained."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unistep.api.judges import AnyJudge, judge_of, require_images_for_judge
from unistep.api.real_images import load_real, published, splits_of
from unistep.data import ImageDataset, load_images
from unistep.errors import Mistakes, UserError
from unistep.evaluation.feature_judge import FeatureJudge
from unistep.evaluation.features import load_judge
from unistep.evaluation.judge_network import JudgeNetwork
from unistep.evaluation.judging import require_enough_samples
from unistep.evaluation.reference import ONE_BY_ONE, ReferenceFeatures
from unistep.evaluation.train_judge import hold_out, require_judgeable
from unistep.recipes.load import recipe_of
from unistep.recipes.schema import DistillRecipe, TeachRecipe
from unistep.recipes.sections import EvaluationConfig


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
            "are judged; set real.size and real.channels, or name other images"
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
