"""The teacher stage of a distillation: loaded, taught by a recipe, or analytic and fitted with a network."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unistep.api.certifying import require_certificate
from unistep.api.fitting import certified, is_fitted
from unistep.api.runs import read_record, record
from unistep.api.talk import Talk
from unistep.api.teaching import teach
from unistep.errors import UserError
from unistep.networks import Generator
from unistep.recipes.schema import DistillRecipe
from unistep.teachers.checkpoint import save_state
from unistep.teachers.codecs import move_codec
from unistep.teachers.load import load_teacher, prepare_teacher
from unistep.teachers.teacher import Teacher
from unistep.training.distributed import on_main, world_size


@dataclass(frozen=True)
class Starting:
    """Where a distillation starts.

    Attributes:
        teacher: mu_base; exact for an analytic teacher.
        network: the teacher whose network is copied for generator and fake score; the fitted one for an analytic
            teacher, else the same.
    """

    teacher: Teacher
    network: Teacher

    def copy(self) -> nn.Module:
        """A trainable copy of the network."""
        return self.network.trainable_copy()

    def description(self, generator: Generator) -> dict[str, Any]:
        """What is written beside the weights of a generator."""
        conditioner = self.teacher.conditioner
        seen = {
            "shape": list(self.teacher.shape),
            "codec": self.teacher.codec.config(),
            "conditioner": conditioner.config() if conditioner is not None else None,
        }
        return {**seen, **self.network.config, **generator.config()}

    def save_generator(self, folder: Path, state: Mapping[str, Tensor], generator: Generator) -> None:
        """Writes the generator's folder from weights of it, brought to the CPU one by one: no further copy is made."""
        stored = {name.removeprefix("denoiser."): value.detach().cpu().contiguous() for name, value in state.items()}
        save_state(folder, stored, self.description(generator))


def starting_point(
    recipe: DistillRecipe, folder: Path, device: torch.device, say: Talk, quiet: bool, own: Teacher | None = None
) -> Starting:
    """The recipe's teacher (or the caller's own) on the device, and the network to start from.

    Raises:
        UserError: if there is no such teacher, or a network cannot be fitted to one without weights.
    """
    if own is not None:
        require_described(own)
    teacher = own or find_teacher(recipe, folder, device, say, quiet)
    teacher.denoiser.to(device)
    move_codec(teacher.codec, device)
    teacher.guided(recipe.teacher.guidance)  # refused now, not after hours, where the teacher takes no conditions
    if recipe.teacher.certify:
        require_certificate(teacher, folder, device, say)
    if any(True for _ in teacher.denoiser.parameters()):
        return Starting(teacher, teacher)
    fitted_earlier = is_fitted(folder / "teacher")
    network, certificate = certified(recipe, teacher, folder / "teacher", device, say)
    if not fitted_earlier or "fit" not in read_record(folder / "run.json"):
        on_main(lambda: record(folder, fit=certificate))
    return Starting(teacher, network)


def require_described(teacher: Teacher) -> None:
    """Refuses a codec or conditioner of the caller's own that a generator's folder cannot describe.

    Raises:
        UserError: naming the part.
    """
    for name, part in (("codec", teacher.codec), ("conditioner", teacher.conditioner)):
        config = getattr(part, "config", None)
        try:
            json.dumps(config() if callable(config) else {"type": object})
        except TypeError as error:
            if part is not None:
                raise UserError(
                    f"teacher.{name}: found {type(part).__name__} without a config() of plain values, expected "
                    'one such as {"type": "mine"}: it is written beside the generator'
                ) from error


def find_teacher(recipe: DistillRecipe, folder: Path, device: torch.device, say: Talk, quiet: bool) -> Teacher:
    """Loads the teacher, or teaches it in the run's `teacher` folder first.

    Raises:
        UserError: if the recipe names none.
    """
    if recipe.teacher.load is not None:
        place = (recipe.teacher.load, recipe.teacher.options, device.type)
        if world_size() > 1:
            on_main(lambda: prepare_teacher(*place))
        return load_teacher(*place)
    if recipe.teacher.teach is None:
        raise UserError(
            "teacher: found neither load nor teach, expected one of them, or in Python teacher=, a teacher of your own"
        )
    say(f"teacher: recipe {recipe.teacher.teach}")
    run = teach(recipe.teacher.teach, out=folder / "teacher", device=device.type, quiet=quiet)
    return load_teacher(run)
