"""`distill`: teacher in, one-step generator out, stage by stage; every stage looks for what is done and goes on."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from unistep.api.draws import generated, solved_teacher, teacher_draws
from unistep.api.evaluating import evaluate_run, require_judging
from unistep.api.hooks import looking_hooks
from unistep.api.images import real_images
from unistep.api.judges import find_quick_judge, judged_features
from unistep.api.lpips import lpips_of_files
from unistep.api.pairing import pairs_of_run
from unistep.api.runs import open_run, record, record_start
from unistep.api.talk import Talk, with_flags
from unistep.api.teachers import Starting, starting_point
from unistep.api.weights import Measure, choose_weights, initial_weights
from unistep.errors import UserError
from unistep.evaluation.features import load_perceptual
from unistep.losses.regression import build_regression, require_images
from unistep.methods.config import Distance
from unistep.methods.ingredients import Ingredients
from unistep.networks import Generator
from unistep.recipes.load import Recipe, recipe_of
from unistep.recipes.schema import DistillRecipe, GeneratorConfig
from unistep.teachers.teacher import Teacher
from unistep.training.batches import Streams
from unistep.training.distributed import on_main, process_group, resolve_device, unwrap
from unistep.training.loop import train
from unistep.training.optim import check_names
from unistep.training.prepare import prepare_network
from unistep.training.random import derived_seed


def distill(
    recipe: str | Path | Recipe,
    *,
    out: str | Path | None = None,
    overrides: Iterable[str] = (),
    teacher: Teacher | None = None,
    seed: int | None = None,
    device: str = "auto",
    recompute: bool = False,
    quiet: bool = False,
) -> Path:
    """Distils a teacher into a one-step generator, going on where an earlier call stopped.

    Args:
        recipe: a distill recipe: built-in name, path or loaded.
        out: the run's folder; None = runs/<recipe name>.
        overrides: `a.b=c` items.
        teacher: your own teacher, instead of the recipe's.
        seed: overrides training.seed.
        device: auto, cpu or cuda.
        recompute: measure the teacher anew instead of using stored features.
        quiet: print nothing.

    Returns:
        The run's folder; `load_generator` opens it.

    Raises:
        UserError: for mistakes in recipe, teacher, pairs or folder.
        KeyboardInterrupt: after Ctrl-C, with everything saved.
    """
    resolved = recipe_of(DistillRecipe, recipe, with_flags(overrides, seed, device))
    where, say = resolve_device(resolved.training.device), Talk(quiet)
    with process_group(where):
        folder = on_main(lambda: open_run(resolved, Path(out) if out else None))
        on_main(lambda: record_start(folder, where))
        start = starting_point(resolved, folder, where, say, quiet, teacher)
        on_main(lambda: record(folder, teacher=facts(start.teacher), seeds=seeds(resolved)))
        train_generator(resolved, start, folder, where, say, quiet)
        evaluate_run(resolved, start.teacher, folder, where, say, recompute, quiet)
    return folder


def facts(teacher: Teacher) -> dict[str, str]:
    """What run.json says of the teacher."""
    return {"source": teacher.source, "sha256": teacher.sha256}


def seeds(recipe: DistillRecipe) -> dict[str, int]:
    """What run.json says of the seeds."""
    first_pair = {} if recipe.pairs is None else {"first_pair": recipe.pairs.first_seed}
    return {"training": recipe.training.seed, "first_evaluated": recipe.evaluation.first_seed, **first_pair}


def train_generator(
    recipe: DistillRecipe, start: Starting, folder: Path, device: torch.device, say: Talk, quiet: bool
) -> None:
    """Pairs if needed, the loop, the export to `generator/`."""
    teacher, config = start.teacher, recipe.training
    require_judging(recipe, teacher, folder, device, say)
    above, _ = solved_teacher(teacher, recipe.evaluation.solver, recipe.teacher.guidance, device)
    method = recipe.method.build(ingredients(recipe, start, device, folder))
    check_names(config.optim, method.networks)
    images = real_images(recipe.data, teacher) if recipe.data is not None and recipe.method.needs_data else None
    pairs = pairs_of_run(recipe, teacher, folder, device, say, quiet) if recipe.method.needs_pairs else None
    streams = Streams(
        seed=config.seed, batch=config.batch, pair_batch=config.pair_batch, device=device,
        conditioner=teacher.conditioner, pairs=pairs, pair_phases=method.pair_phases, images=images,
        image_phases=method.image_phases,
    )  # fmt: skip
    quick = find_quick_judge(recipe, teacher, folder, device, say) if config.evaluate_every else None
    seen_by = judged_features(recipe, teacher, folder, device, say)
    hooks = looking_hooks(
        lambda network: teacher_draws(teacher, generated(network), device), quick, say, above, seen_by
    )
    generator = cast(Generator, unwrap(method.networks[method.averaged]))
    description = start.description(generator)
    result = train(method, streams, config, folder, hooks, bound_to(recipe, teacher), description)
    if result.stopped == "signal":
        raise KeyboardInterrupt
    chosen = choose_weights(
        recipe.generator.weights, generator, result.ema, measure(recipe, teacher, folder, device, say)
    )
    on_main(lambda: start.save_generator(folder / "generator", chosen.state, generator))
    on_main(lambda: record(folder, weights={"exported": chosen.name, **chosen.scores}))
    if chosen.scores:
        both = ", ".join(f"{name} {score:.4g}" for name, score in sorted(chosen.scores.items()))
        say(f"exported the {chosen.name} weights; distances: {both}")


def ingredients(
    recipe: DistillRecipe, start: Starting, device: torch.device, folder: Path | None = None
) -> Ingredients:
    """What the recipe's method is built from; the run in `folder` records which files its weights came from.

    Raises:
        UserError: for a noise level, a generator to start from or a distance that does not suit the teacher.
    """
    held_at = initial_time(recipe.generator, start.teacher)
    return Ingredients(
        teacher=start.teacher,
        copy=start.copy,
        prepare=lambda network: prepare_network(network, recipe.training, device),
        steps=recipe.training.steps,
        guidance=recipe.teacher.guidance,
        init=initial_weights(recipe.generator.init, start, held_at, folder),
        t_init=held_at,
        regression=regression(recipe.method.distance, start.teacher.shape, device, folder),
        seed=derived_seed(recipe.training.seed, "initial weights"),
    )


def measure(recipe: DistillRecipe, teacher: Teacher, folder: Path, device: torch.device, say: Talk) -> Measure | None:
    """What compares averaged and last weights: the quick judge, on seeds after those of the evaluation."""
    evaluation = recipe.evaluation
    after = evaluation.model_copy(update={"first_seed": evaluation.first_seed + evaluation.samples})
    judge = find_quick_judge(recipe.model_copy(update={"evaluation": after}), teacher, folder, device, say)
    if judge is None:
        return None
    return lambda network: judge(teacher_draws(teacher, generated(network), device))["score"]


def bound_to(recipe: DistillRecipe, teacher: Teacher) -> dict[str, Any]:
    """What must not change between two parts of a training: the recipe's training side, and the teacher itself."""
    free = {"about", "evaluation", "name"}
    return {**recipe.model_dump(mode="json", exclude=free), "teacher_sha256": teacher.sha256}


def initial_time(config: GeneratorConfig, teacher: Teacher) -> float | None:
    """The time the generator is held at, None for the terminal one.

    Raises:
        UserError: if sigma_init is given for a process whose time is not sigma.
    """
    if config.u_init is not None:
        return float(teacher.process.time(torch.tensor([config.u_init])))
    if config.sigma_init is not None and teacher.process.config()["type"] != "edm":
        raise UserError(
            f"generator.sigma_init: found {config.sigma_init} with process {teacher.process.config()['type']}, "
            "expected an EDM process; use generator.u_init, a place on the training grid"
        )
    return config.sigma_init


def regression(
    wanted: Distance | None, shape: tuple[int, ...], device: torch.device, folder: Path | None = None
) -> Callable[[Tensor, Tensor], Tensor] | None:
    """The distance that a method's settings name, for samples [b, *shape], ready to use; None where none is needed.

    Raises:
        UserError: for a distance of images, or a perceptual network, that looks at samples of another shape, or for
            missing weights.
    """
    if wanted is None:
        return None
    require_images(wanted.name, shape)
    features, lpips = None, lpips_of_files(wanted.lpips_weights, folder) if wanted.lpips_weights else None
    if wanted.perceptual_network is not None:
        features = load_perceptual(wanted.perceptual_network).to(device)
        sees = (features.config["channels"], features.config["size"], features.config["size"])
        if sees != shape:
            raise UserError(
                f"method.perceptual_network: found one for samples of shape {list(sees)}, expected the teacher's "
                f"{list(shape)}; choose l2, or multiscale for images"
            )
    distance = build_regression(wanted.name, features, wanted.pixel_weight, lpips)
    return distance.to(device) if isinstance(distance, nn.Module) else distance
