"""Distillation by LoRA: generator and fake score are adapters on the weights of the teacher, in memory once."""

from dataclasses import dataclass
from typing import Any

from unistep.api.teachers import Starting
from unistep.errors import UserError
from unistep.networks import Generator
from unistep.networks.lora import Adapted, LoRAConfig, sharing_copy
from unistep.networks.precision import require_gradient_range
from unistep.recipes.schema import DistillRecipe
from unistep.teachers.adapters import Base, described
from unistep.teachers.diffusers.denoiser import DiffusersDenoiser
from unistep.teachers.module import ModuleDenoiser
from unistep.teachers.teacher import Teacher
from unistep.training.config import TrainingConfig
from unistep.training.distributed import world_size
from unistep.training.random import derived_seed


@dataclass(frozen=True)
class AdaptedStart(Starting):
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


def as_recipe_says(recipe: DistillRecipe, start: Starting) -> Starting:
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
