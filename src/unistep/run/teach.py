"""`teach`: images in, an EDM teacher out: unconditional, or conditioned on classes or captions."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unistep.data import ImageDataset
from unistep.diffusion.process import process_from_config
from unistep.evaluation.measure import require_enough_samples
from unistep.methods import LabelDropout, Teach
from unistep.networks import EDMDenoiser
from unistep.networks.state_dict import load_strictly
from unistep.recipes.load import RecipeLike, recipe_of
from unistep.recipes.overrides import Overrides, with_flags
from unistep.recipes.schema import TeachRecipe
from unistep.run.console import Talk
from unistep.run.continue_run import continue_run, earlier_recipes, find_run, mark_finished, read_continued
from unistep.run.extractors import judge_of, keep_perceptual, quick_image_judge, ready, trained_judge
from unistep.run.fit import export_average
from unistep.run.folder import agreed, folder_of, only_writer, open_run, record_start
from unistep.run.hooks import build_hooks
from unistep.run.reference_images import splits_of
from unistep.run.sample_sources import SampleSource, teacher_source
from unistep.run.teach_checks import require_teachable
from unistep.run.teach_config import conditioning, teacher_config
from unistep.teachers.checkpoint import load_denoiser
from unistep.teachers.checkpoint_config import random_denoiser
from unistep.teachers.codecs import PixelCodec
from unistep.teachers.diffusers.denoiser import DiffusersDenoiser
from unistep.teachers.teacher import Conditioner
from unistep.training.batches import EncodedImages, Streams
from unistep.training.distributed import on_rank_zero, process_group, require_agreement, resolve_device, unwrap
from unistep.training.hooks import Hooks
from unistep.training.loop import train
from unistep.training.prepare import prepare_network
from unistep.training.random import derived_seed


def teach(
    recipe: RecipeLike,
    *,
    out: str | Path | None = None,
    overrides: Overrides = (),
    seed: int | None = None,
    device: str = "auto",
    quiet: bool = False,
    steps: int | None = None,
) -> Path:
    """Trains a teacher, going on where an earlier call stopped.

    Args:
        recipe: a teach recipe: built-in name, path, mapping or loaded.
        out: the run's folder; None = runs/<recipe name>.
        overrides: `a.b=c` items or a mapping, see `load_recipe`.
        seed: overrides training.seed.
        device: auto, cpu or cuda.
        quiet: print nothing.
        steps: only with a run in the place of the recipe: the number of steps to add, see `distill`.

    Returns:
        The run's folder; `load_teacher` opens it.

    Raises:
        UserError: for mistakes in recipe, data or folder.
        KeyboardInterrupt: after Ctrl-C, with everything saved.
    """
    run, flags, say = find_run(recipe, out, steps), with_flags(overrides, seed, device), Talk(quiet)
    resolved = read_continued(TeachRecipe, run, steps, flags) if run else recipe_of(TeachRecipe, recipe, flags)
    where = resolve_device(resolved.training.device)
    with process_group(where):
        require_agreement(agreed(resolved))
        _, data = require_teachable(resolved, where)
        conditioner, labels = conditioning(resolved, data, where)
        config = teacher_config(resolved, data, conditioner)
        with only_writer(run or folder_of(resolved, out), say):
            if run is not None:
                on_rank_zero(lambda: continue_run(resolved, run, say))
            folder = on_rank_zero(lambda: open_run(resolved, run or (Path(out) if out else None)))
            on_rank_zero(lambda: record_start(folder, where))
            method = build_teaching(resolved, config, where)
            result = train(
                method,
                image_stream(resolved, data, conditioner, labels, where),
                resolved.training,
                folder,
                teaching_hooks(resolved, data, conditioner, folder, where, say),
                bound_to(resolved),
                config,
                earlier=[bound_to(other) for other in earlier_recipes(TeachRecipe, folder)],
            )
            export_average(result, unwrap(method.denoiser), folder / "teacher", config)
            on_rank_zero(lambda: mark_finished(folder, resolved))
    return folder


def bound_to(recipe: TeachRecipe) -> dict[str, Any]:
    """Returns what must not change between two parts of a training."""
    return recipe.model_dump(mode="json", exclude={"about", "evaluation", "name"})


def build_teaching(recipe: TeachRecipe, config: dict[str, Any], device: torch.device) -> Teach:
    """The method of a teach recipe, its network at the start.

    Raises:
        UserError: for values that make no network, or an `init` that does not fit it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derived_seed(recipe.training.seed, "initial weights"))
        design = initial_denoiser(recipe, config)
    return Teach(prepare_network(design, recipe.training, device), design, recipe.loss)


def image_stream(
    recipe: TeachRecipe,
    data: ImageDataset,
    conditioner: Conditioner | None,
    labels: Tensor | None,
    device: torch.device,
) -> Streams:
    """The images as the loop is given them, with the conditions of the labels that `conditioning` found."""
    training, images = recipe.training, EncodedImages(data.images, labels, PixelCodec())
    dropout = LabelDropout(recipe.loss.label_dropout, conditioner)
    return Streams(seed=training.seed, batch=training.batch, device=device, images=images, real_condition=dropout)


def initial_denoiser(recipe: TeachRecipe, config: dict[str, Any]) -> EDMDenoiser | DiffusersDenoiser:
    """Random weights, or those of the checkpoint folder `recipe.init`.

    Raises:
        UserError: if that folder cannot be read or holds another network.
    """
    design = random_denoiser(config)
    if recipe.init is not None:
        state = load_denoiser(Path(recipe.init))[0].state_dict()
        load_strictly(design, state, Path(recipe.init))
    return design


def teaching_hooks(
    recipe: TeachRecipe, data: ImageDataset, conditioner: Conditioner | None, folder: Path, device: torch.device,
    say: Talk,
) -> Hooks:  # fmt: skip
    """Previews and quality of the teacher in the making, under the recipe's solver; the judge is trained first."""
    evaluation, process = recipe.evaluation, process_from_config(recipe.process)

    def draws(network: nn.Module) -> SampleSource:
        model, _ = teacher_source(network, process, conditioner, evaluation.solver, recipe.guidance)
        return SampleSource(model=model, shape=data.shape, codec=PixelCodec(), conditioner=conditioner, device=device)

    if evaluation.judge is None:
        return build_hooks(draws, None, say)
    if evaluation.judge == "train":
        judge = trained_judge(folder / "judge", lambda: data, evaluation.judge_steps, say)
        keep_perceptual(folder / "judge", data, evaluation.judge_steps, say)
    else:
        judge = judge_of(evaluation.judge)
    sample = torch.zeros(1, *data.shape, dtype=torch.uint8)
    real = splits_of(evaluation) or {"train": recipe.data}
    judge = ready(judge, evaluation, real, folder, sample, device, say)
    require_enough_samples(judge.reference("train"), None, evaluation.samples_during_training)
    return build_hooks(draws, quick_image_judge(judge, evaluation), say)
