"""A teacher as its evaluation sees it: under prompts of the evaluation's own, its images resized, held against CLIP."""

import dataclasses
import json
from functools import lru_cache

import torch
from torch import Tensor

from unistep.errors import UserError
from unistep.evaluation.extractors.resized import ResizedCodec
from unistep.evaluation.metrics.alignment import KEY, Clip, PromptAlignment
from unistep.recipes.schema import DistillRecipe
from unistep.recipes.sections import EvaluationConfig
from unistep.teachers.diffusers.captions import Captions, TextEncoding
from unistep.teachers.diffusers.conditioner import TextConditioner
from unistep.teachers.diffusers.prompts import read_prompts
from unistep.teachers.load import load_prompts
from unistep.teachers.teacher import Teacher
from unistep.training.distributed import on_rank_zero

CLIP = "clip:"


def apply_protocol(recipe: DistillRecipe, teacher: Teacher, device: torch.device) -> Teacher:
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
    load, own = recipe.teacher.load, teacher.conditioner
    if isinstance(own, Captions):
        asked = (own.encoding, prompts, device.type)
        on_rank_zero(lambda: captions(*asked))  # one rank encodes for all
        return captions(*asked)
    if load is None or not isinstance(own, TextConditioner):
        raise UserError(
            f"evaluation.prompts: found {prompts}, expected null: {teacher.source} reads no text, or was not loaded by "
            "teacher.load"
        )
    place = (load, json.dumps(recipe.teacher.options, sort_keys=True), prompts, device.type)
    on_rank_zero(lambda: encoded(*place))
    return encoded(*place)


@lru_cache(maxsize=2)
def encoded(load: str, options: str, prompts: str, device: str) -> TextConditioner:
    """Read once in a process: the files of large sets are checked when they are opened."""
    return load_prompts(load, json.loads(options), prompts, device)


@lru_cache(maxsize=2)
def captions(encoding: TextEncoding, prompts: str, device: str) -> Captions:
    """The same for a teacher that was taught on captions, whose encoder is at hand."""
    return Captions.encoded(encoding, read_prompts(prompts), device)


def alignment_of(evaluation: EvaluationConfig, judged: Teacher, device: torch.device) -> PromptAlignment | None:
    """What holds samples against their prompts, None where the evaluation asks for nothing.

    The model is loaded once in a process; asked for on another device, it moves there.

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

    return PromptAlignment(loaded_clip(evaluation.alignment.removeprefix(CLIP)).to(device), prompts)


@lru_cache(maxsize=1)
def loaded_clip(spec: str) -> Clip:
    """Read once: it is looked for before training, and needed by every evaluation afterwards."""
    return Clip(spec)
