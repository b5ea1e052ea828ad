"""The real images that a distillation learns from: files in the teacher's space, or exact samples of its mixture."""

import torch
from torch import Tensor

from unistep.data import ImageDataset, load_images
from unistep.errors import UserError
from unistep.recipes.sections import ExactData, RealImages
from unistep.teachers.analytic import GaussianMixture
from unistep.teachers.diffusers.conditioner import TextConditioner
from unistep.teachers.teacher import Conditioner, Teacher
from unistep.training.batches import EncodedImages, Images, TensorImages


def real_images(config: RealImages, teacher: Teacher) -> Images:
    """The stream of real images.

    Raises:
        UserError: for images that are not of the teacher's kind, or exact samples of a teacher that has none.
    """
    if isinstance(config, ExactData):
        return exact_samples(config, teacher)
    found = load_images(config)
    require_alike(found, teacher)
    labels = None if teacher.conditioner is None else labels_for(found, teacher.conditioner)
    return EncodedImages(found.images, labels, teacher.codec, teacher.conditioner)


def labels_for(found: ImageDataset, conditioner: Conditioner) -> Tensor | None:
    """The label of each image, int64 [n]; for a teacher that reads text the index of its caption among the prompts.

    Raises:
        UserError: for a caption that is none of the prompts.
    """
    if not found.captions:
        return found.labels
    place = {prompt: i for i, prompt in enumerate(conditioner.names)}
    unknown = next((caption for caption in found.captions if caption not in place), None)
    if unknown is not None:
        raise UserError(f"data.caption: found {unknown!r}, expected one of the teacher's {len(place):,} prompts")
    return torch.tensor([place[caption] for caption in found.captions])


def exact_samples(config: ExactData, teacher: Teacher) -> TensorImages:
    """Samples of a mixture, each a pure function of its seed."""
    if not isinstance(teacher.denoiser, GaussianMixture):
        raise UserError(f"data.kind: found exact, expected image files: {teacher.source} is no exact mixture")
    seeds = torch.arange(config.first_seed, config.first_seed + config.count)
    cond = teacher.conditioner.from_seeds(seeds) if teacher.conditioner is not None else None
    return TensorImages(teacher.denoiser.sample(seeds, cond), cond)


def require_alike(found: ImageDataset, teacher: Teacher) -> None:
    """Refuses images of another shape than the teacher's, or without the classes or prompts that it reads."""
    made = teacher.image_shape()
    if found.shape != made:
        raise UserError(f"data: found images of {list(found.shape)}, expected {list(made)}, as the teacher makes them")
    if teacher.conditioner is None or found.captions:
        return
    classes = len(teacher.conditioner.names)
    if isinstance(teacher.conditioner, TextConditioner):
        if found.labels is None or found.num_classes > classes:
            raise UserError(
                f"data: found labels of {found.num_classes} kinds, expected the number of each image's prompt, at most "
                f"{classes - 1}"
            )
    elif found.labels is None or found.num_classes != classes:
        raise UserError(f"data: found {found.num_classes} classes, expected {classes}, those of the teacher")
