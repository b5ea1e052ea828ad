"""A teacher as its evaluation sees it: under prompts of the evaluation's own, its images resized, held against CLIP."""

import dataclasses
import json
from functools import lru_cache

import torch
from torch import Tensor

from unistep.errors import UserError
from unistep.evaluation.alignment import KEY, Clip, PromptAlignment
from unistep.evaluation.resized import ResizedCodec
from unistep.recipes.schema import DistillRecipe
from unistep.recipes.sections import EvaluationConfig
from unistep.teachers.diffusers.conditioner import TextConditioner
from unistep.teachers.load import load_prompts
from unistep.teachers.teacher import Teacher
from unistep.training.distributed import on_main

CLIP = "clip:"


def judged_teacher(recipe: DistillRecipe, teacher: Teacher, device: torch.device) -> Teacher:
    """The teacher whose conditions and images are those of the evaluation; the same where it asks for nothing special.

    With `evaluation.prompts` sample i, of seed first_seed + i, has prompt i (modulo their number).

    Raises:
        UserError: for prompts where no text is read, or prompts that cannot be encoded.
    """
    evaluation = recipe.evaluation
    if evaluation.prompts is not None:
        texts = own_prompts(recipe, evaluation.prompts, teacher, device)
        teacher = dataclasses.replace(teacher, conditioner=dataclasses.replace(texts, first=evaluation.first_seed))
    if evaluation.resize is not None:
        teacher = dataclasses.replace(teacher, codec=ResizedCodec(teacher.codec, evaluation.resize))
    return teacher


def own_prompts(recipe: DistillRecipe, prompts: str, teacher: Teacher, device: torch.device) -> TextConditioner:
    """The prompts of an evaluation, encoded as the teacher's were."""
    load = recipe.teacher.load
    if load is None or not isinstance(teacher.conditioner, TextConditioner):
        raise UserError(
            f"evaluation.prompts: found {prompts}, expected null: {teacher.source} is no pipeline that reads text"
        )
    place = (load, json.dumps(recipe.teacher.options, sort_keys=True), prompts, device.type)
    on_main(lambda: encoded(*place))  # one rank encodes for all
    return encoded(*place)


@lru_cache(maxsize=2)
def encoded(load: str, options: str, prompts: str, device: str) -> TextConditioner:
    """Read once in a process: the files of large sets are checked when they are opened."""
    return load_prompts(load, json.loads(options), prompts, device)


def alignment_of(evaluation: EvaluationConfig, judged: Teacher, device: torch.device) -> PromptAlignment | None:
    """What holds samples against their prompts, None where the evaluation asks for nothing.

    Args:
        evaluation: names the model.
        judged: the teacher as its evaluation sees it.
        device: where to look.

    Raises:
        UserError: for a teacher without prompts, or a model that cannot be loaded.
    """
    if evaluation.alignment is None:
        return None
    conditioner = judged.conditioner
    if conditioner is None:
        raise UserError(f"{KEY}: found {evaluation.alignment}, expected null: {judged.source} reads no prompts")

    def prompts(seeds: Tensor) -> list[str]:
        return [conditioner.names[i] for i in conditioner.labels(seeds).tolist()]

    return PromptAlignment(Clip(evaluation.alignment.removeprefix(CLIP), device), prompts)
