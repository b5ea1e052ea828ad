"""Checks before the first second of work: everything that recipe, data and teacher can tell, all mistakes at once."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from unistep.data import ImageDataset
from unistep.errors import Mistakes, rename_section
from unistep.methods.inputs import MethodInputs
from unistep.networks import build_denoiser
from unistep.networks.build import require_memory
from unistep.networks.discriminator import bottleneck
from unistep.networks.meta import copy_to_meta
from unistep.recipes.load import recipe_of
from unistep.recipes.schema import DistillRecipe, TeachRecipe
from unistep.recipes.stages import Stage, stages_of
from unistep.run.console import Talk
from unistep.run.distance import distance_of
from unistep.run.evaluation_checks import check_evaluation
from unistep.run.fit import fit_config, fit_of, mixture_of
from unistep.run.teach_checks import META, check_shares, check_solver, require_teachable
from unistep.run.teacher import StudentInit, apply_lora, find_teacher
from unistep.run.training_images import read_images, real_images
from unistep.run.weights import initial_time, initial_weights
from unistep.teachers.checkpoint import teacher_from_config
from unistep.teachers.teacher import Teacher
from unistep.training.optim import check_names


@dataclass(frozen=True)
class Start:
    """Where a distillation would start.

    Attributes:
        teacher: loaded, the caller's own, or the shape of one that is yet to be taught.
        loaded: the same if it is there already, so that it need not be loaded again; else None.
        images: the image files that the distillation learns from, if it learns from any.
    """

    teacher: Teacher
    loaded: Teacher | None
    images: ImageDataset | None = None


def require_ready(recipe: DistillRecipe, folder: Path, device: torch.device, own: Teacher | None = None) -> Start:
    """Refuses a distillation that would stop later, before anything is taught, fitted, solved or trained.

    Args:
        recipe: what is to be run.
        folder: that the run has, or will have; nothing is written.
        device: where it runs.
        own: the caller's own teacher.

    Returns:
        The teacher as far as it is there.

    Raises:
        UserError: naming every mistake on a line of its own.
    """
    mistakes, images, start = Mistakes(), None, None
    stages = stages_of(recipe)
    for stage in stages:
        check_shares("training", stage.recipe.training, mistakes, bool(recipe.pairs))
    if recipe.fit is not None:
        check_shares("fit.training", recipe.fit.training, mistakes)
    with mistakes.collect():
        images = read_images(recipe)
    with mistakes.collect():
        start = find_start(recipe, folder, device, own)
    if start is None:
        mistakes.require_none()
        raise AssertionError("a teacher that is not there is a mistake")
    teacher = start.teacher
    with mistakes.collect():
        teacher.guided(recipe.teacher.guidance)
    for key, solver in (("pairs", recipe.pairs and recipe.pairs.solver), ("evaluation", recipe.evaluation.solver)):
        if key != "pairs" or recipe.method.needs_pairs:
            check_solver(f"{key}.solver", solver, teacher.process, mistakes)
    if recipe.data is not None and recipe.method.needs_data and (images is not None or recipe.data.kind == "exact"):
        with mistakes.collect():
            real_images(recipe.data, teacher, images)
    with mistakes.collect():
        check_method(stages, starting_shapes(recipe, teacher, mistakes), device, mistakes)
    check_evaluation(recipe, teacher, folder, device, mistakes)
    mistakes.require_none()
    return replace(start, images=images)


def require_pairs(recipe: DistillRecipe, folder: Path, device: torch.device, own: Teacher | None = None) -> Start:
    """Refuses pairs that could not be made; the same for what pairs need alone.

    Raises:
        UserError: naming every mistake on a line of its own.
    """
    mistakes, start = Mistakes(), None
    if recipe.pairs is None:
        mistakes.add(f"pairs: found nothing in recipe {recipe.name}, expected a section with at least a count")
    with mistakes.collect():
        start = find_start(recipe, folder, device, own)
    if start is not None:
        with mistakes.collect():
            start.teacher.guided(recipe.teacher.guidance)
        check_solver("pairs.solver", recipe.pairs and recipe.pairs.solver, start.teacher.process, mistakes)
    mistakes.require_none()
    assert start is not None
    return start


# ----------------------------------------------------------------------------------------------------------- teachers


def find_start(recipe: DistillRecipe, folder: Path, device: torch.device, own: Teacher | None) -> Start:
    """The teacher: loaded, or in shape where its own recipe is yet to be run.

    Raises:
        UserError: for a teacher that is not there, or mistakes in the recipe that teaches it.
    """
    if own is not None or recipe.teacher.teach is None:
        teacher = own or find_teacher(recipe, folder, device, Talk(quiet=True), quiet=True)
        return Start(teacher, teacher)
    teaching = recipe_of(TeachRecipe, recipe.teacher.teach, {"training.device": device.type})
    return Start(require_teachable(teaching, device)[0], None)


def starting_shapes(recipe: DistillRecipe, teacher: Teacher, mistakes: Mistakes) -> StudentInit:
    """Teacher and network that a distillation starts from, in shape: nothing is allocated for copies of them.

    Raises:
        UserError: for a fit that does not suit the teacher.
    """
    network = teacher
    if not any(True for _ in teacher.denoiser.parameters()):
        fit = fit_of(recipe, teacher)
        check_names(fit.training.optim, {"denoiser": nn.Identity()})
        config = fit_config(fit, teacher, mixture_of(teacher))
        with META, rename_section("network", "fit.network"):
            denoiser = build_denoiser(config)
        with mistakes.collect():
            require_memory(denoiser, "fit.network")
        network = teacher_from_config(denoiser, config, source="fit", sha256="")
    shapes = replace(network, denoiser=copy_to_meta(network.denoiser))
    start = StudentInit(teacher, network)
    with mistakes.collect():  # adapters that suit no network of the teacher's kind: without, the rest can be checked
        start = apply_lora(recipe, start)
    return replace(start, teacher=replace(teacher, denoiser=copy_to_meta(teacher.denoiser)), network=shapes)


# --------------------------------------------------------------------------------------------------- stages and solvers


def check_method(stages: Iterable[Stage], start: StudentInit, device: torch.device, mistakes: Mistakes) -> None:
    """Whether the method of each stage can be built: its noise level, distance and start, and which networks learn."""
    for stage in stages:
        recipe, held_at = stage.recipe, None
        with mistakes.collect():
            held_at = initial_time(recipe.generator, start.teacher)
            with mistakes.collect("generator.init"):
                initial_weights(recipe.generator.init, start, held_at, None)
        with mistakes.collect():
            distance_of(recipe.method.distance, start.teacher, device)
        if recipe.method.has_discriminator:
            with mistakes.collect():
                bottleneck(start.copy())
        inputs = MethodInputs(
            teacher=start.teacher, copy=start.copy, prepare=lambda network: network,
            steps=recipe.method_steps or recipe.training.steps, guidance=recipe.teacher.guidance, t_init=held_at,
            regression=zero_distance,
        )  # fmt: skip
        with mistakes.collect():
            check_names(recipe.training.optim, recipe.method.build(inputs).networks)


def zero_distance(x: Tensor, y: Tensor) -> Tensor:
    """Stands in for a distance that is checked by itself."""
    return (x - y).flatten(1).sum(1) * 0
