"""Checks of a teach recipe before the first second of work, and of what every training shares: batches and solvers."""

from pathlib import Path

import torch
from torch import nn

from unistep.data import ImageDataset, load_images
from unistep.diffusion.process.base import NoiseProcess
from unistep.diffusion.samplers import build_sampler, missing_package
from unistep.errors import Mistakes
from unistep.networks.build import require_memory
from unistep.networks.state_dict import require_same_tensors
from unistep.recipes.schema import TeachRecipe
from unistep.recipes.sections import AutoSolverConfig, SolverConfig
from unistep.run.evaluation_checks import check_taught_judge
from unistep.run.sample_sources import unsuited
from unistep.run.teach_config import conditioning, teacher_config
from unistep.teachers.checkpoint import load_denoiser, teacher_from_config
from unistep.teachers.checkpoint_config import random_denoiser
from unistep.teachers.teacher import Teacher
from unistep.training.batches import rows_per_shard
from unistep.training.config import TrainingConfig
from unistep.training.distributed import world_size
from unistep.training.optim import check_names
from unistep.training.random import Shard

META = torch.device("meta")


def require_teachable(recipe: TeachRecipe, device: torch.device) -> tuple[Teacher, ImageDataset]:
    """Refuses a teach recipe that would stop later.

    Returns:
        The teacher that it makes, in shape: its weights are on the meta device. And the images.

    Raises:
        UserError: naming every mistake on a line of its own.
    """
    mistakes, teacher, data = Mistakes(), None, None
    check_shares("training", recipe.training, mistakes)
    with mistakes.collect():
        data = load_images(recipe.data)
        check_taught_judge(recipe, data, mistakes)
        with mistakes.collect():
            conditioner, _ = conditioning(recipe, data, device)
            config = teacher_config(recipe, data, conditioner)
            with META:
                denoiser = random_denoiser(config)
            with mistakes.collect():
                require_memory(denoiser)
            teacher = teacher_from_config(denoiser, config, source=recipe.name, sha256="")
            check_solver("evaluation.solver", recipe.evaluation.solver, teacher.process, mistakes)
            check_init(recipe.init, denoiser, mistakes)
    with mistakes.collect():
        check_names(recipe.training.optim, {"denoiser": nn.Identity()})
    mistakes.require_none()
    assert teacher is not None
    assert data is not None
    return teacher, data


def check_init(init: str | None, denoiser: nn.Module, mistakes: Mistakes) -> None:
    """Whether the checkpoint that a teacher starts from is there and of its shape."""
    if init is not None:
        with mistakes.collect("init"):
            require_same_tensors(denoiser, load_denoiser(Path(init))[0].state_dict(), init)


def check_shares(section: str, config: TrainingConfig, mistakes: Mistakes, has_pairs: bool = False) -> None:
    """Whether ranks and micro-batches get whole rows."""
    part = Shard(0, world_size() * config.accumulate)
    with mistakes.collect():
        rows_per_shard(f"{section}.batch", config.batch, part)
    if has_pairs and config.pair_batch is not None:
        with mistakes.collect():
            rows_per_shard(f"{section}.pair_batch", config.pair_batch, part)


def check_solver(
    key: str, solver: SolverConfig | AutoSolverConfig | None, process: NoiseProcess, mistakes: Mistakes
) -> None:
    """Whether a solver is installed, takes its options and suits the process."""
    if solver is None or isinstance(solver, AutoSolverConfig):
        return
    missing = missing_package(solver.name)
    if missing is not None:
        mistakes.add(f"{key}.name: found {solver.name}, which {missing}")
        return
    with mistakes.collect():
        build_sampler(solver.name, solver.num_steps, **solver.options)
        reason = unsuited(solver, process)
        if reason is not None:
            mistakes.add(f"{key}: {reason}")
