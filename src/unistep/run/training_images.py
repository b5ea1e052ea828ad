"""The real images that a distillation learns from: files in the teacher's space, or exact samples of its mixture."""

import torch
from torch import Tensor

from unistep.data import ImageDataset, load_images
from unistep.errors import Mistakes, UserError
from unistep.recipes.schema import DistillRecipe
from unistep.recipes.sections import ExactData, RealImages
from unistep.recipes.stages import stages_of
from unistep.teachers.analytic import GaussianMixture
from unistep.teachers.diffusers.conditioner import TextConditioner
from unistep.teachers.teacher import Conditioner, Teacher
from unistep.training.batches import EncodedImages, Images, TensorImages


def read_images(recipe: DistillRecipe) -> ImageDataset | None:
    """The image files that a distillation learns from, read before anything else; None where it learns from none.

    Raises:
        UserError: for mistakes in the files, or fewer images than a batch.
    """
    batches = [stage.recipe.training.batch for stage in stages_of(recipe) if stage.recipe.method.needs_data]
    if recipe.data is None or not batches:
        return None
    if isinstance(recipe.data, ExactData):
        require_batch(recipe.data.count, max(batches))
        return None
    found = load_images(recipe.data)
    require_batch(len(found), max(batches))
    return found


def real_images(config: RealImages, teacher: Teacher, found: ImageDataset | None = None) -> Images:
    """The stream of real images.

    Args:
        config: says which.
        teacher: whose kind they must be of.
        found: the image files, if they have been read.

    Raises:
        UserError: for images that are not of the teacher's kind, or exact samples of a teacher that has none.
    """
    if isinstance(config, ExactData):
        return exact_samples(config, teacher)
    found = found or load_images(config)
    require_alike(found, teacher)
    labels = None if teacher.conditioner is None else labels_for(found, teacher.conditioner)
    return EncodedImages(found.images, labels, teacher.codec, teacher.conditioner)


def require_batch(n: int, batch: int) -> None:
    """Refuses a batch that would hold images twice.

    Raises:
        UserError: naming both numbers.
    """
    if n < batch:
        raise UserError(f"training.batch: found {batch:,}, expected at most {n:,}, the number of images of data")


def labels_for(found: ImageDataset, conditioner: Conditioner) -> Tensor | None:
    """The label of each image, int64 [n]; for a teacher that reads text the index of its caption among the prompts.

    Raises:
        UserError: for a caption that is none of the prompts.
    """
    if not found.captions:
        return found.labels
    place = {prompt: i for i, prompt in enumerate(conditioner.names)}
    if unknown := [*dict.fromkeys(caption for caption in found.captions if caption not in place)]:
        others = f" (and {len(unknown) - 1:,} other captions)" if len(unknown) > 1 else ""
        raise UserError(
            f"data.caption: found {unknown[0]!r}{others}, expected one of the teacher's {len(place):,} prompts"
        )
    return torch.tensor([place[caption] for caption in found.captions])


def exact_samples(config: ExactData, teacher: Teacher) -> TensorImages:
    """Samples of a mixture, each a pure function of its seed."""
    if not isinstance(teacher.denoiser, GaussianMixture):
        raise UserError(f"data.kind: found exact, expected image files: {teacher.source} is no exact mixture")
    seeds = torch.arange(config.first_seed, config.first_seed + config.count)
    cond = teacher.conditioner.from_seeds(seeds) if teacher.conditioner is not None else None
    return TensorImages(teacher.denoiser.sample(seeds, cond), cond)


def require_alike(found: ImageDataset, teacher: Teacher) -> None:
    """Refuses images of another shape than the teacher's, or without the classes or prompts that it reads.

    Raises:
        UserError: naming both mistakes.
    """
    mistakes, made = Mistakes(), teacher.image_shape()
    if found.shape != made:
        mistakes.add(f"data: found images of {list(found.shape)}, expected {list(made)}, as the teacher makes them")
    if teacher.conditioner is not None and not found.captions:
        with mistakes.collect():
            require_conditions(found, teacher.conditioner)
    mistakes.require_none()


def require_conditions(found: ImageDataset, conditioner: Conditioner) -> None:
    """Refuses images without the classes or prompts that a teacher reads."""
    classes = len(conditioner.names)
    if isinstance(conditioner, TextConditioner):
        if found.labels is None or found.num_classes > classes:
            raise UserError(
                f"data: found labels of {found.num_classes} kinds, expected the number of each image's prompt, at most "
                f"{classes - 1}"
            )
    elif found.labels is None or found.num_classes != classes:
        raise UserError(f"data: found {found.num_classes} classes, expected {classes}, those of the teacher")
