"""`distill`: teacher in, one-step generator out, stage by stage; every stage looks for what is done and goes on."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch

from unistep.data import ImageDataset
from unistep.io.progress import show_waiting
from unistep.methods.inputs import MethodInputs
from unistep.networks import Generator
from unistep.recipes.load import RecipeLike, recipe_of
from unistep.recipes.overrides import Overrides, with_flags
from unistep.recipes.schema import DistillRecipe
from unistep.recipes.stages import Stage, stages_of
from unistep.run.console import Talk
from unistep.run.continue_run import continue_run, earlier_recipes, find_run, mark_finished, read_continued
from unistep.run.distance import distance_of
from unistep.run.evaluate import evaluate_run, require_judging
from unistep.run.extractors import find_quick_judge, judged_features
from unistep.run.folder import agreed, folder_of, only_writer, open_run, record, record_start
from unistep.run.health_reference import FILE, health_reference
from unistep.run.hooks import build_hooks
from unistep.run.pairs import pairs_of_run
from unistep.run.preflight import require_ready
from unistep.run.sample_sources import generator_source, solved_teacher, teacher_draws
from unistep.run.teacher import StudentInit, apply_lora, starting_point
from unistep.run.training_images import real_images
from unistep.run.weights import Measure, choose_weights, initial_time, initial_weights
from unistep.teachers.checkpoint import checkpoint_sha256
from unistep.teachers.teacher import Teacher
from unistep.training.batches import Images, Streams, rows_per_shard
from unistep.training.checkpoint import Checkpoints
from unistep.training.distributed import (
    on_rank_zero,
    process_group,
    require_agreement,
    resolve_device,
    sum_over_ranks,
    unwrap,
    world_size,
)
from unistep.training.ema import EMA
from unistep.training.hooks import Hooks
from unistep.training.loop import train
from unistep.training.optim import check_names
from unistep.training.prepare import prepare_network
from unistep.training.random import Shard, derived_seed


def distill(
    recipe: RecipeLike,
    *,
    out: str | Path | None = None,
    overrides: Overrides = (),
    teacher: Teacher | None = None,
    seed: int | None = None,
    device: str = "auto",
    recompute: bool = False,
    cache: bool = True,
    quiet: bool = False,
    steps: int | None = None,
) -> Path:
    """Distils a teacher into a one-step generator, going on where an earlier call stopped.

    Args:
        recipe: a distill recipe: built-in name, path, mapping or loaded; or the folder of a run, which is continued,
            finished or not.
        out: the run's folder; None = runs/<recipe name>.
        overrides: `a.b=c` items or a mapping, see `load_recipe`; on continuing those that leave networks and their
            state as they are.
        teacher: your own teacher, instead of the recipe's.
        seed: overrides training.seed.
        device: auto, cpu or cuda.
        recompute: measure the teacher anew instead of using stored features.
        cache: use and keep features of the teacher in the user's cache, for all runs on the same protocol.
        quiet: print nothing.
        steps: only with a run: the number of steps to add to its training. The same call goes on after an
            interruption; once it has come to its end, the next one adds again.

    Returns:
        The run's folder; `load_generator` opens it.

    Raises:
        UserError: for mistakes in recipe, teacher, pairs or folder.
        KeyboardInterrupt: after Ctrl-C, with everything saved.
    """
    run, flags = find_run(recipe, out, steps), with_flags(overrides, seed, device)
    resolved = read_continued(DistillRecipe, run, steps, flags) if run else recipe_of(DistillRecipe, recipe, flags)
    where, say = resolve_device(resolved.training.device), Talk(quiet)
    with process_group(where):
        require_agreement(agreed(resolved))
        ready = require_ready(resolved, run or folder_of(resolved, out), where, teacher)
        with only_writer(run or folder_of(resolved, out), say):
            if run is not None:
                on_rank_zero(lambda: continue_run(resolved, run, say))
            folder = on_rank_zero(lambda: open_run(resolved, run or (Path(out) if out else None)))
            on_rank_zero(lambda: record_start(folder, where))
            start = apply_lora(resolved, starting_point(resolved, folder, where, say, quiet, ready.loaded))
            require_agreement(teacher_record(start.teacher))
            on_rank_zero(lambda: record(folder, teacher=teacher_record(start.teacher), seeds=seeds(resolved)))
            trainer = StageTrainer(resolved, start, folder, where, say, quiet, ready.images)
            *earlier, last = trainer.stages_left()
            for stage in earlier:
                trainer.train(stage)
            trainer.export_generator(*trainer.train(last))
            evaluate_run(resolved, start.teacher, folder, where, say, recompute, cache)
            on_rank_zero(lambda: mark_finished(folder, resolved))
    return folder


def teacher_record(teacher: Teacher) -> dict[str, str]:
    """What run.json says of the teacher."""
    return {"source": teacher.source, "sha256": teacher.sha256}


def seeds(recipe: DistillRecipe) -> dict[str, int]:
    """What run.json says of the seeds."""
    first_pair = {} if recipe.pairs is None else {"first_pair": recipe.pairs.first_seed}
    return {"training": recipe.training.seed, "first_evaluated": recipe.evaluation.first_seed, **first_pair}


@dataclass(frozen=True)
class StageTrainer:
    """Runs stages of a distillation in its folder, each from the state in which the one before ended."""

    recipe: DistillRecipe
    start: StudentInit
    folder: Path
    device: torch.device
    say: Talk
    quiet: bool
    found: ImageDataset | None

    def stages_left(self) -> list[Stage]:
        """The stages that the run's newest checkpoint has not seen the end of, and always the last one.

        Raises:
            UserError: for settings that would stop the training or a later stage.
        """
        require_judging(self.recipe, self.start.teacher, self.folder, self.device, self.say)
        stages = stages_of(self.recipe)
        require_stages(stages, self.start.teacher, self.device)
        steps = on_rank_zero(lambda: Checkpoints(self.folder / "checkpoints").steps())
        return [*(stage for stage in stages[:-1] if stage.until > max(steps, default=0)), stages[-1]]

    def train(self, stage: Stage) -> tuple[Generator, EMA | None]:
        """Builds the method with the stage's settings and as many pairs as it needs, and runs the loop to its end.

        Returns:
            The generator with its last weights, and their average.

        Raises:
            KeyboardInterrupt: after Ctrl-C, with everything saved.
        """
        recipe, teacher, config = stage.recipe, self.start.teacher, stage.recipe.training
        method = recipe.method.build(build_method_inputs(recipe, self.start, self.device, self.folder))
        check_names(config.optim, method.networks)
        if self.recipe.stages:
            self.say(f"a stage until step {stage.until} of {config.steps}")
        images = self.images if recipe.method.needs_data else None
        needed = recipe.method.needs_pairs
        pairs = pairs_of_run(recipe, teacher, self.folder, self.device, self.say, self.quiet) if needed else None
        streams = Streams(
            seed=config.seed, batch=config.batch, pair_batch=config.pair_batch, device=self.device,
            conditioner=teacher.conditioner, pairs=pairs, images=images,
        )  # fmt: skip
        generator = cast(Generator, unwrap(method.networks[method.ema_network]))
        description, bound = self.start.description(generator), bound_to(self.recipe, teacher)
        before = [bound_to(other, teacher) for other in earlier_recipes(DistillRecipe, self.folder)]
        result = train(method, streams, config, self.folder, self.hooks, bound, description, stage.until, before)
        if result.stopped == "signal":
            raise KeyboardInterrupt
        return generator, result.ema

    def export_generator(self, generator: Generator, ema: EMA | None) -> None:
        """Writes `generator/` with the averaged or the last weights, whichever the recipe or a measurement prefers."""
        folder = self.folder
        judge = measure(self.recipe, self.start.teacher, folder, self.device, self.say)
        with show_waiting("comparing averaged and last weights", self.say.shows):
            chosen = choose_weights(self.recipe.generator.weights, generator, ema, judge)
        on_rank_zero(lambda: self.start.save_generator(folder / "generator", chosen.state, generator))
        known = {"exported": chosen.name, **chosen.scores}
        on_rank_zero(
            lambda: record(folder, generator={"sha256": checkpoint_sha256(folder / "generator")}, weights=known)
        )
        if chosen.scores:
            both = ", ".join(f"{name} {score:.4g}" for name, score in sorted(chosen.scores.items()))
            self.say(f"exported the {chosen.name} weights; distances: {both}")

    @cached_property
    def images(self) -> Images | None:
        """The recipe's real images, the same for all stages."""
        data, teacher = self.recipe.data, self.start.teacher
        return None if data is None else real_images(data, teacher, self.found)

    @cached_property
    def hooks(self) -> Hooks:
        """What looks at the run, made once for all stages, when the first method is there."""
        recipe, teacher, device = self.recipe, self.start.teacher, self.device
        seen = (recipe, teacher, self.folder, device, self.say)
        solver, guidance = recipe.evaluation.solver, recipe.teacher.guidance
        above, nfe = solved_teacher(teacher, solver, guidance, device)
        quick, features = find_quick_judge(*seen) if recipe.training.evaluate_every else None, judged_features(*seen)
        made_with = {
            "teacher": teacher.sha256, "solver": solver.model_dump(mode="json"), "guidance": guidance,
            "features": features and features.facts,
        }  # fmt: skip
        health = health_reference(above, features, recipe.evaluation.batch, nfe, self.folder / FILE, made_with)
        return build_hooks(
            lambda network: teacher_draws(teacher, generator_source(network), device), quick, self.say, above, health
        )


def require_stages(stages: list[Stage], teacher: Teacher, device: torch.device) -> None:
    """Finds what would stop a later stage, before hours of the first: missing weights, batches that cannot be shared.

    Raises:
        UserError: naming the setting.
    """
    for stage in stages[1:]:
        distance_of(stage.recipe.method.distance, teacher, device)
        config = stage.recipe.training
        part = Shard(0, world_size() * config.accumulate)
        rows_per_shard("training.batch", config.batch, part)
        rows_per_shard("training.pair_batch", config.pair_batch or config.batch, part)


def build_method_inputs(
    recipe: DistillRecipe, start: StudentInit, device: torch.device, folder: Path | None = None
) -> MethodInputs:
    """What the recipe's method is built from; the run in `folder` records which files its weights came from.

    Raises:
        UserError: for a noise level, a generator to start from or a distance that does not suit the teacher.
    """
    held_at = initial_time(recipe.generator, start.teacher)
    return MethodInputs(
        teacher=start.teacher,
        copy=start.copy,
        prepare=lambda network: prepare_network(network, recipe.training, device),
        steps=recipe.method_steps or recipe.training.steps,
        guidance=recipe.teacher.guidance,
        init=initial_weights(recipe.generator.init, start, held_at, folder),
        t_init=held_at,
        regression=distance_of(recipe.method.distance, start.teacher, device, folder),
        sum_over_ranks=sum_over_ranks,
        seed=derived_seed(recipe.training.seed, "initial weights"),
    )


def measure(recipe: DistillRecipe, teacher: Teacher, folder: Path, device: torch.device, say: Talk) -> Measure | None:
    """What compares averaged and last weights: the quick judge, on seeds after those of the evaluation."""
    evaluation = recipe.evaluation
    after = evaluation.model_copy(update={"first_seed": evaluation.first_seed + evaluation.samples})
    judge = find_quick_judge(recipe.model_copy(update={"evaluation": after}), teacher, folder, device, say)
    if judge is None:
        return None
    return lambda network: judge(teacher_draws(teacher, generator_source(network), device))["score"]


def bound_to(recipe: DistillRecipe, teacher: Teacher) -> dict[str, Any]:
    """What must not change between two parts of a training: the recipe's training side, and the teacher itself."""
    free = {"about", "evaluation", "name", *(() if recipe.lora else ("lora",))}
    return {**recipe.model_dump(mode="json", exclude=free), "teacher_sha256": teacher.sha256}
