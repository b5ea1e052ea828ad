"""Checks of an evaluation before anything is made that it would judge: its judge, images, samples, prompts and rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from unistep.api.judged_teacher import alignment_of, judged_teacher
from unistep.api.judges import judge_of, point_reference
from unistep.api.reference_checks import reference_of_named, reference_of_trained
from unistep.assets import embedded_folder
from unistep.errors import Mistakes, UserError
from unistep.evaluation.judging import require_enough_samples
from unistep.evaluation.points import FEWEST
from unistep.recipes.schema import DistillRecipe
from unistep.recipes.sections import EvaluationConfig
from unistep.teachers.checkpoint import read_generator
from unistep.teachers.teacher import Teacher


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
        judged = judged_teacher(recipe, teacher, device)
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
