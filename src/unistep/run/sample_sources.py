"""From seeds to what is looked at: the same for a generator and for a teacher under a solver."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from unistep.diffusion.guidance import GuidedDenoiser
from unistep.diffusion.process.base import NoiseProcess
from unistep.diffusion.samplers import build_sampler, seeded_normal
from unistep.errors import UserError
from unistep.networks import Generator
from unistep.recipes.sections import SolverConfig
from unistep.teachers.codecs import move_codec
from unistep.teachers.teacher import Codec, Conditioner, Teacher
from unistep.training.distributed import unwrap
from unistep.types import Cond, to_device

Model = Callable[[Tensor, Cond, Tensor], Tensor]
"""(z [b, *dims], cond, seeds [b]) -> x [b, *dims]."""


@dataclass(frozen=True, kw_only=True)
class SampleSource:
    """Samples of a model, each a pure function of its seed: noise and class come from the seed alone.

    Attributes:
        model: from noise to model space.
        shape: dims of one sample.
        codec: model space to what is looked at.
        conditioner: labels to conditions, or None.
        device: where the model is; the codec's networks come there, too.
    """

    model: Model
    shape: tuple[int, ...]
    codec: Codec
    conditioner: Conditioner | None
    device: torch.device

    def __post_init__(self) -> None:
        move_codec(self.codec, self.device)

    @torch.no_grad()
    def __call__(self, seeds: Tensor) -> tuple[Tensor, Tensor | None]:
        """Seeds int64 [b] -> decoded samples [b, ...] on the CPU, and the classes asked for int64 [b] or None."""
        cond = self.conditioner.from_seeds(seeds) if self.conditioner is not None else None
        return self.decoded(seeds, cond), cond if isinstance(cond, Tensor) else None

    def decoded(self, seeds: Tensor, cond: Cond) -> Tensor:
        """Decoded samples of seeds under conditions of your own."""
        return self.codec.decode(self.raw(seeds, cond)).cpu()

    @torch.no_grad()
    def raw(self, seeds: Tensor, cond: Cond) -> Tensor:
        """Samples in model space, on the device."""
        z = seeded_normal(seeds, self.shape).to(self.device)
        return self.model(z, to_device(cond, self.device), seeds)

    def batch(self, size: int) -> Tensor:
        """`size` finished samples, for timing."""
        return self(torch.arange(size))[0]


def generator_source(generator: nn.Module) -> Model:
    """A generator as a model, with all its steps; one that is trained on several ranks too."""
    return cast(Generator, unwrap(generator)).sample


def teacher_source(
    denoiser: nn.Module,
    process: NoiseProcess,
    conditioner: Conditioner | None,
    solver: SolverConfig,
    guidance: float,
) -> tuple[Model, int]:
    """A denoiser under a solver as a model, and its network evaluations per sample (doubled by guidance)."""
    sampler = build_sampler(solver.name, solver.num_steps, **solver.options)
    guided = denoiser if conditioner is None else GuidedDenoiser(denoiser, conditioner.null, guidance)
    nfe = sampler.nfe(getattr(guided, "evaluations_per_call", 1))
    return lambda z, cond, seeds: sampler(guided, process, z, cond, seeds).x, nfe


def teacher_draws(teacher: Teacher, model: Model, device: torch.device) -> SampleSource:
    """Draws in a teacher's space."""
    return SampleSource(
        model=model, shape=teacher.shape, codec=teacher.codec, conditioner=teacher.conditioner, device=device
    )  # fmt: skip


def solved_teacher(
    teacher: Teacher, solver: SolverConfig, guidance: float, device: torch.device
) -> tuple[SampleSource, int]:
    """Draws of a teacher under a solver, and their network evaluations per sample."""
    model, nfe = teacher_source(teacher.denoiser, teacher.process, teacher.conditioner, solver, guidance)
    return teacher_draws(teacher, model, device), nfe


def unsuited(solver: SolverConfig, process: NoiseProcess) -> str | None:
    """What a solver says to a process that it cannot solve, asked with a denoiser that answers zero."""
    z, seeds = torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64)
    try:
        sampler = build_sampler(solver.name, solver.num_steps, **solver.options)
        sampler(lambda x, t, cond: torch.zeros_like(x), process, z, seeds=seeds)
    except UserError as error:
        return str(error)
    return None
