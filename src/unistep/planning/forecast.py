"""What a recipe will take, stage by stage, from what was measured: arithmetic, so that changed recipes can be tried."""

from dataclasses import replace
from pathlib import Path

import torch

from unistep.costing.calls import CallCosts
from unistep.costing.distill import DistillCalls, DistillCosts
from unistep.costing.evaluation import LOOKED_AT_ONCE, JudgeCosts
from unistep.costing.result import Stage
from unistep.costing.tally import CostSum, times_due
from unistep.costing.teach import TeachCosts
from unistep.costing.training import PROCESS, Setting, looking_stage, network_memory, sizes_under, training_stage
from unistep.planning.disk import missing_shards, pairs_disk, pairs_in_memory
from unistep.recipes.schema import DistillRecipe, TeachRecipe
from unistep.recipes.sections import EvaluationConfig, PairsConfig
from unistep.run.health_reference import reference_seeds
from unistep.run.hooks import IMAGE_SEEDS, POINT_SEEDS
from unistep.run.pairs import place_of, sampler_of
from unistep.run.sample_sources import solved_teacher
from unistep.run.solver_choice import FILE, foresee
from unistep.teachers.teacher import Teacher

CPU = torch.device("cpu")


def shown_at_once(teacher: Teacher) -> int:
    """Samples of one preview."""
    return len(IMAGE_SEEDS) if len(teacher.shape) > 1 else len(POINT_SEEDS)


def judge_stages(evaluation: EvaluationConfig, judge: JudgeCosts | None, setting: Setting) -> list[Stage]:
    """A judge is trained on real images and shown all of them; nothing where it is there with what it saw."""
    if judge is None or not judge.real:
        return []
    seen = CostSum(seconds=evaluation.judge_steps * judge.step)
    seen.show(judge.call, judge.real, LOOKED_AT_ONCE)
    memory = {**setting.beside, "activations": max(judge.memory, round(seen.memory))}
    disk = {"judge": judge.file} if judge.step else {"features of real images": judge.real * judge.row}
    return [Stage(name="judge", seconds=seen.seconds, memory={PROCESS: setting.base, **memory}, disk=disk)]


# ------------------------------------------------------------------------------------------------------------- teach


def teach_stages(recipe: TeachRecipe, costs: TeachCosts, setting: Setting) -> list[Stage]:
    """The judge, if it is to be trained; the training; what is looked at meanwhile."""
    setting = replace(setting, beside={"images": costs.images})
    training = training_stage("training", costs.training, recipe.training, setting)
    if costs.call is None:
        return [training]
    looks = looking_stage(teach_looks(recipe, costs, costs.call), costs.training, recipe.training, setting)
    return [*judge_stages(recipe.evaluation, costs.judge, setting), training, looks]


def teach_looks(recipe: TeachRecipe, costs: TeachCosts, call: CallCosts) -> CostSum:
    """Previews and figures of the teacher in the making, under the recipe's solver."""
    evaluation, config, at_once = recipe.evaluation, recipe.training, shown_at_once(costs.teacher)
    _, nfe = solved_teacher(costs.teacher, evaluation.solver, recipe.guidance, CPU)
    looks = CostSum()
    looks.ask(call, (1 + times_due(config.preview_every, config.steps)) * at_once, at_once, nfe)
    if costs.judge is not None:
        judged = times_due(config.evaluate_every, config.steps) * evaluation.samples_during_training
        looks.ask(call, judged, evaluation.batch, nfe)
        looks.show(costs.judge.call, judged, evaluation.batch)
    return looks


# ----------------------------------------------------------------------------------------------------------- distill


def distill_stages(recipe: DistillRecipe, costs: DistillCosts, setting: Setting, folder: Path) -> list[Stage]:
    """The teacher's own stages, judge, pairs, the training, what is looked at meanwhile, the evaluation."""
    alone, calls = replace(setting, ranks=1), costs.calls
    taught = teach_stages(*costs.taught, alone) if costs.taught is not None else []
    stages = [replace(stage, name=f"teacher: {stage.name}") for stage in taught]
    if costs.fit is not None and recipe.fit is not None:
        stages.append(training_stage("fit", costs.fit, recipe.fit.training, alone))
    stages += judge_stages(recipe.evaluation, calls.judge if calls else None, alone)
    beside = {"images": costs.images}
    if recipe.pairs is not None and recipe.method.needs_pairs:
        stages.append(pairs_stage(recipe, recipe.pairs, costs, setting, folder))
        used = recipe.training.steps * (recipe.training.pair_batch or recipe.training.batch)
        beside["pairs"] = pairs_in_memory(recipe.pairs, costs.start.teacher, used)
    setting = replace(setting, beside=beside)
    stages.append(training_stage("training", costs.training, recipe.training, setting))
    if calls is not None:
        looks = distill_looks(recipe, costs.start.teacher, calls)
        stages.append(looking_stage(looks, costs.training, recipe.training, setting))
        stages.append(evaluation_stage(recipe, costs, calls, alone))
    return stages


def pairs_stage(
    recipe: DistillRecipe, pairs: PairsConfig, costs: DistillCosts, setting: Setting, folder: Path
) -> Stage:
    """The pairs that are not there yet, whole shards of them; the networks to train are in memory already."""
    teacher, guidance, place = costs.start.teacher, recipe.teacher.guidance, place_of(pairs, folder)
    foreseen = foresee(recipe, pairs, teacher, place / FILE)
    sampler = sampler_of(foreseen.solver)
    _, nfe = solved_teacher(teacher, foreseen.solver, guidance, CPU)
    shards = missing_shards(pairs, place)
    solved, held = CostSum(), network_memory(sizes_under(costs.training, recipe.training, setting.ranks), setting)
    if costs.calls is not None:
        solved.ask(costs.calls.teacher, shards * pairs.tile, pairs.tile, nfe)
        each = foreseen.evaluations * nfe // sampler.nfe()  # guidance doubles both
        solved.ask(costs.calls.teacher, foreseen.seeds, pairs.tile, each)
    return Stage(
        name="pairs, at most" if foreseen.seeds else "pairs",
        evaluations=solved.evaluations if costs.calls else None,
        seconds=solved.seconds if costs.calls else None,
        memory={**held, "activations": round(solved.memory)},
        disk={"pairs": pairs_disk(pairs, teacher, sampler, guidance, shards)},
    )


def distill_looks(recipe: DistillRecipe, teacher: Teacher, calls: DistillCalls) -> CostSum:
    """Previews, the health monitor's reference, figures during the training, and the choice of weights after it."""
    evaluation, config, at_once = recipe.evaluation, recipe.training, shown_at_once(teacher)
    _, nfe = solved_teacher(teacher, evaluation.solver, recipe.teacher.guidance, CPU)
    previews, looks = 1 + times_due(config.preview_every, config.steps), CostSum()
    references = len(reference_seeds(teacher.shape, nfe))
    looks.ask(calls.teacher, references, min(references, evaluation.batch), nfe)
    looks.ask(calls.teacher, at_once, at_once, nfe)
    looks.ask(calls.network, previews * at_once, at_once, calls.nfe)
    looks.show(calls.decode, (previews + 1) * at_once, at_once)
    if calls.rows:
        during = times_due(config.evaluate_every, config.steps) if config.evaluate_every else 0
        compared = 2 if recipe.generator.weights == "best" and config.ema else 0
        judged = (during + compared) * evaluation.samples_during_training
        batch = calls.at_once(evaluation, evaluation.samples_during_training)
        looks.ask(calls.network, judged, batch, calls.nfe)
        looks.show(calls.decode, judged, batch)
        if calls.judge is not None:
            looks.show(calls.judge.call, judged, batch)
    return looks


def evaluation_stage(recipe: DistillRecipe, costs: DistillCosts, calls: DistillCalls, setting: Setting) -> Stage:
    """Samples of every row that are not on file, seen by the judge, and the timing of each row.

    The arithmetic of metrics and the drawing of figures are not counted.
    """
    evaluation, judged, judge, sizes = recipe.evaluation, CostSum(), calls.judge, costs.training.sizes
    shown, batch = shown_at_once(costs.start.teacher), calls.at_once(evaluation, evaluation.samples)
    for row in calls.rows:
        network = calls.teacher if row.role in ("teacher", "teacher_one_step") else calls.network
        made = shown if row.cached else shown + evaluation.samples
        judged.ask(network, made, batch, row.nfe)
        judged.show(calls.decode, made, batch)
        if row.timed:
            judged.time(network, calls.decode, row.nfe)
        if judge is not None and not row.cached:
            judged.show(judge.call, evaluation.samples, batch)
    stored = sum(1 for row in calls.rows if not row.cached and row.role != "student")
    memory = {"weights: frozen networks": sizes.frozen, "weights: generator": sizes.exported}
    return Stage(
        name="evaluation", evaluations=judged.evaluations, seconds=judged.seconds,
        memory={PROCESS: setting.base, **memory, "activations": round(judged.memory)},
        disk={"features": stored * evaluation.samples * judge.row if judge is not None else 0},
    )  # fmt: skip
