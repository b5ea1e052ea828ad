"""The teacher stage of a distillation: loaded, taught by a recipe, or analytic and fitted with a network."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unistep.errors import UserError
from unistep.networks import Generator
from unistep.networks.lora import Adapted, LoRAConfig, sharing_copy
from unistep.networks.precision import require_gradient_range
from unistep.recipes.schema import DistillRecipe
from unistep.run.certify import require_certificate
from unistep.run.console import Talk
from unistep.run.fit import certified, is_fitted
from unistep.run.folder import read_record, record
from unistep.run.teach import teach
from unistep.teachers.adapters import Base, described
from unistep.teachers.checkpoint import save_state
from unistep.teachers.codecs import move_codec
from unistep.teachers.diffusers.denoiser import DiffusersDenoiser
from unistep.teachers.load import load_teacher, prepare_teacher
from unistep.teachers.module import ModuleDenoiser
from unistep.teachers.teacher import Teacher
from unistep.training.config import TrainingConfig
from unistep.training.distributed import on_rank_zero, world_size
from unistep.training.random import derived_seed


@dataclass(frozen=True)
class StudentInit:
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
) -> StudentInit:
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
        return StudentInit(teacher, teacher)
    fitted_earlier = is_fitted(folder / "teacher")
    network, certificate = certified(recipe, teacher, folder / "teacher", device, say)
    if not fitted_earlier or "fit" not in read_record(folder / "run.json"):
        on_rank_zero(lambda: record(folder, fit=certificate))
    return StudentInit(teacher, network)


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
            on_rank_zero(lambda: prepare_teacher(*place))
        return load_teacher(*place)
    if recipe.teacher.teach is None:
        raise UserError(
            "teacher: found neither load nor teach, expected one of them, or in Python teacher=, a teacher of your own"
        )
    say(f"teacher: recipe {recipe.teacher.teach}")
    run = teach(recipe.teacher.teach, out=folder / "teacher", device=device.type, quiet=quiet)
    return load_teacher(run)


@dataclass(frozen=True)
class AdaptedStart(StudentInit):
    """A start whose copies share the teacher's weights and learn an adapter each.

    Attributes:
        lora: with its target modules named.
        base: the teacher, as the generator's folder names it.
        seed: of the adapters' initial values, the same for each.
    """

    lora: LoRAConfig
    base: Base
    seed: int

    def copy(self) -> Adapted:
        return Adapted(sharing_copy(self.network.denoiser), self.lora, self.seed)

    def description(self, generator: Generator) -> dict[str, Any]:
        return {**super().description(generator), "lora": described(self.lora, self.base)}


def apply_lora(recipe: DistillRecipe, start: StudentInit) -> StudentInit:
    """The start itself, or with adapters where the recipe has a section `lora`.

    Raises:
        UserError: for a network that is none of diffusers' or the user's own, one in float16, or settings that suit no
            adapter.
    """
    if recipe.lora is None:
        return start
    require_suited(recipe.training)
    require_gradient_range(start.teacher.denoiser, "lora")
    lora = recipe.lora.model_copy(update={"target_modules": target_modules(recipe.lora, start.teacher)})
    dtype = recipe.teacher.options.get("dtype", "float32")
    base = Base(source=start.teacher.source, sha256=start.teacher.sha256, dtype=dtype)
    seed = derived_seed(recipe.training.seed, "adapters")
    return AdaptedStart(start.teacher, start.network, lora, base, seed)


def target_modules(lora: LoRAConfig, teacher: Teacher) -> tuple[str, ...]:
    """The recipe's layers, or the defaults of the teacher's family.

    Raises:
        UserError: for a network of another kind, or one of the user's own whose layers nobody names.
    """
    denoiser = teacher.denoiser
    if isinstance(denoiser, DiffusersDenoiser):
        return lora.target_modules or denoiser.family.lora
    if not isinstance(denoiser, ModuleDenoiser):
        raise UserError(
            f"lora: found it with teacher {teacher.source}, expected a pipeline of diffusers or a module of your own; "
            "leave the section out, and the whole network learns"
        )
    if lora.target_modules is None:
        raise UserError("lora.target_modules: missing; name layers of your network, such as [to_q, to_v]")
    return lora.target_modules


def require_suited(training: TrainingConfig) -> None:
    """Refuses what would look for the shared weights among a network's own.

    Raises:
        UserError: naming the setting.
    """
    if training.compile:
        raise UserError("training.compile: found true with lora, expected false")
    if training.strategy == "fsdp" and world_size() > 1:
        raise UserError("training.strategy: found fsdp with lora, expected ddp: only the adapters learn, and each fits")
