"""`evaluate`: floor, teacher, teacher at one step and generator, judged alike; then the report."""

from collections.abc import Mapping
from pathlib import Path

import torch

from unistep.assets import embedded_folder
from unistep.errors import Mistakes, UserError
from unistep.evaluation import Candidate, Evaluation, Identity, evaluate_models, evaluate_points
from unistep.evaluation.cache import holds
from unistep.evaluation.evaluate import slug
from unistep.evaluation.measure import all_metrics, left_out, require_enough_samples
from unistep.evaluation.metrics.alignment import Alignment
from unistep.evaluation.result import Role
from unistep.io.progress import show_stages, show_waiting
from unistep.networks import Generator
from unistep.recipes.load import recipe_of
from unistep.recipes.overrides import Overrides, with_flags
from unistep.recipes.schema import DistillRecipe
from unistep.recipes.sections import EvaluationConfig
from unistep.reports import print_table, write_report, write_samples
from unistep.run.checkpoints import export_checkpoint
from unistep.run.console import Talk
from unistep.run.evaluation_checks import check_evaluation, deciding_samples, generator_folder
from unistep.run.evaluation_protocol import alignment_of, apply_protocol
from unistep.run.extractors import AnyJudge, find_judge, point_reference
from unistep.run.folder import load_run_recipe, only_writer, read_record
from unistep.run.sample_sources import SampleSource, generator_source, solved_teacher, teacher_draws
from unistep.run.teacher import find_teacher
from unistep.run.teacher_cache import TeacherCache, is_known
from unistep.teachers.checkpoint import load_generator
from unistep.teachers.diffusers.conditioner import TextConditioner
from unistep.teachers.teacher import Teacher
from unistep.training.distributed import on_rank_zero, process_group, resolve_device

TEACHER, ONE_STEP, STUDENT = "teacher", "teacher at one step", "one-step generator"
NO_JUDGE = (
    "evaluation.judge: found nothing, expected embedded:NAME, a folder (`teach` leaves one in its run), "
    "efficientnet-lite0 or inception:PATH: images are not measured without a judge"
)


def evaluate(
    run: str | Path,
    *,
    overrides: Overrides = (),
    teacher: Teacher | None = None,
    checkpoint: str | None = None,
    device: str = "auto",
    recompute: bool = False,
    cache: bool = True,
    quiet: bool = False,
) -> Evaluation:
    """Judges a finished run anew and writes evaluation.json and report.html into it.

    Args:
        run: the folder of a run of `distill`, or the generator's inside it.
        overrides: `a.b=c` items or a mapping; only those under `evaluation` matter.
        teacher: your own teacher, if the run was made with one.
        checkpoint: `best`, `last` or `step-N` of the run's training, given a row of its own beside the generator.
        device: auto, cpu or cuda.
        recompute: measure the teacher anew instead of using stored features.
        cache: use and keep features of the teacher in the user's cache, for all runs on the same protocol.
        quiet: print nothing.

    Raises:
        UserError: if there is no finished run, or for mistakes in the overrides.
    """
    folder = Path(run)
    folder = folder.parent if folder.name == "generator" and (folder.parent / "recipe.yaml").is_file() else folder
    made_with = load_run_recipe(folder)
    if not isinstance(made_with, DistillRecipe):
        raise UserError(f"{folder}: found a run of {made_with.kind}, expected a run of distill, which has a generator")
    recipe = recipe_of(DistillRecipe, made_with, with_flags(overrides, None, device))
    where, say = resolve_device(recipe.training.device), Talk(quiet)
    with process_group(where), only_writer(folder, say):
        found = teacher or find_teacher(recipe, folder, where, say, quiet)
        require_its_teacher(folder, found)
        found.denoiser.to(where)
        mistakes = Mistakes()
        check_evaluation(recipe, found, folder, where, mistakes)
        if recipe.evaluation.judge is None and point_reference(found, 1) is None:
            mistakes.add(NO_JUDGE)
        mistakes.require_none()
        if checkpoint is not None:
            recipe = with_row(recipe, on_rank_zero(lambda: export_checkpoint(folder, checkpoint)))
        result = evaluate_run(recipe, found, folder, where, say, recompute, cache)
    assert result is not None, "there is a judge, or exact samples to compare points with"
    return result


def with_row(recipe: DistillRecipe, generator: Path) -> DistillRecipe:
    """The recipe with a generator of the run's own beside: one of its checkpoints."""
    beside = {**recipe.evaluation.beside, generator.name.replace("-", " ", 1): str(generator)}
    return recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"beside": beside})})


def require_its_teacher(folder: Path, teacher: Teacher) -> None:
    """Refuses another teacher than the one that a run was made with."""
    made_with = read_record(folder / "run.json").get("teacher", {})
    if made_with.get("sha256", teacher.sha256) != teacher.sha256:
        raise UserError(
            f"{folder}: found teacher {teacher.source} ({teacher.sha256[:12]}), expected the run's own, "
            f"{made_with.get('source')} ({made_with['sha256'][:12]}); give that one, or begin in another folder"
        )


def evaluate_run(
    recipe: DistillRecipe, teacher: Teacher, folder: Path, device: torch.device, say: Talk, recompute: bool, cache: bool
) -> Evaluation | None:
    """Judges the generator in a run's folder beside its teacher, on the first rank; all ranks get the result.

    Images without a judge are shown in the report, not measured: then there is no result.
    """
    teacher = apply_protocol(recipe, teacher, device)
    judge = find_judge(recipe, teacher, folder, device, say, recompute)

    def judged() -> Evaluation | None:
        generator, _, _ = load_generator(folder, teacher)
        alignment = alignment_of(recipe.evaluation, teacher, device)
        kept = TeacherCache(teacher, device, recipe.evaluation.samples) if cache and not recompute else None
        rows = candidates(recipe, teacher, generator.to(device), judge, folder, device, alignment, kept)
        if judge is not None:
            result = judge_images(recipe, teacher, rows, judge, folder, say, recompute, alignment)
            if kept is not None:
                kept.keep(rows, folder / "features")
        elif point_reference(teacher, 1) is not None:
            result = judge_points(recipe, teacher, rows, folder, say)
        else:
            say("no judge in the recipe (evaluation.judge): samples are shown, not measured")
            write_samples(folder, rows, first_seed=recipe.evaluation.first_seed, is_points=len(teacher.shape) == 1)
            result = None
        if result is not None:
            result.save(folder / "evaluation.json")
        report = write_report(folder)
        if not say.quiet and result is not None:
            print_table(result)
        say(f"report: {report}")
        return result

    return on_rank_zero(judged)


def candidates(
    recipe: DistillRecipe,
    teacher: Teacher,
    generator: Generator,
    judge: AnyJudge | None,
    folder: Path,
    device: torch.device,
    alignment: Alignment | None = None,
    cache: TeacherCache | None = None,
) -> list[Candidate]:
    """Teacher under its full solver, teacher cut to one step, the generators beside, and the generator."""
    evaluation = recipe.evaluation

    def row(name: str, role: Role, draws: SampleSource, nfe: int, model: str, how: Mapping[str, object]) -> Candidate:
        identity = cached = None
        if judge is not None and role != "student":
            made = {**how, **special(evaluation, teacher, alignment)}
            identity = Identity(teacher=model, judge=judge.sha256, first_seed=evaluation.first_seed, sampler=made)
            cached = stored_features(teacher, name, folder, identity, evaluation.samples)
            if cached is None and cache is not None and role != "other":
                cached = cache.find(identity)
        return Candidate(
            name=name, sample=draws, nfe=nfe, role=role, latency=draws.batch if evaluation.timed else None,
            device=draws.device, identity=identity, cached=cached,
        )  # fmt: skip

    def drawn(network: Generator) -> SampleSource:
        return teacher_draws(teacher, generator_source(network), device)

    full, nfe = solved_teacher(teacher, evaluation.solver, recipe.teacher.guidance, device)
    how = {**evaluation.solver.model_dump(), "guidance": recipe.teacher.guidance}
    cut, step = Generator(teacher.denoiser, teacher.process), {"name": "one step"}
    rows = [
        row(TEACHER, "teacher", full, nfe, teacher.sha256, how),
        row(ONE_STEP, "teacher_one_step", drawn(cut), 1, teacher.sha256, step),
    ]
    for name, spec in evaluation.beside.items():
        other, _, sha256 = load_generator(generator_folder(spec), teacher)
        rows.append(row(name, "other", drawn(other.to(device)), other.steps.count, sha256, step))
    name = STUDENT if generator.steps.count == 1 else f"generator of {generator.steps.count} steps"
    return [*rows, row(name, "student", drawn(generator), generator.steps.count, "", step)]


def special(evaluation: EvaluationConfig, judged: Teacher, alignment: Alignment | None) -> dict[str, object]:
    """What features depend on beyond the usual: prompts of the evaluation's own, a size, who compares with prompts."""
    conditioner = judged.conditioner if evaluation.prompts is not None else None
    prompts = conditioner.sha256 if isinstance(conditioner, TextConditioner) else None
    found = {"prompts": prompts, "resize": evaluation.resize, "alignment": alignment and alignment.sha256}
    found["codec"] = None if is_known(judged.codec) else judged.codec.config()
    return {name: value for name, value in found.items() if value is not None}


def stored_features(teacher: Teacher, name: str, folder: Path, identity: Identity, count: int) -> Path | None:
    """The file of a row's features: kept by an earlier evaluation of this run, or packaged with an embedded teacher.

    None where neither is of this very row (another solver, guidance, judge or seeds) or long enough: it is sampled.
    """
    places = [folder / "features"]
    kind, _, asset = teacher.source.partition(":")
    if kind == "embedded":
        places.append(embedded_folder(asset) / "features")
    files = [place / f"{slug(name)}.safetensors" for place in places]
    return next((file for file in files if holds(file, identity, count)), None)


def judge_images(
    recipe: DistillRecipe,
    teacher: Teacher,
    rows: list[Candidate],
    judge: AnyJudge,
    folder: Path,
    say: Talk,
    recompute: bool,
    alignment: Alignment | None,
) -> Evaluation:
    """Every metric in the judge's features."""
    evaluation = recipe.evaluation
    say(f"judging {evaluation.samples:,} samples of each: {', '.join(row.name for row in rows)}")
    write_samples(folder, rows, first_seed=evaluation.first_seed)
    with show_stages(say.shows) as progress:
        return evaluate_models(
            rows, judge, num_samples=evaluation.samples, first_seed=evaluation.first_seed, batch=evaluation.batch,
            recompute=recompute, keep_features=folder / "features", with_floor="test" in judge.references,
            alignment=alignment, teacher=teacher.sha256, on_progress=progress,
            waiting=lambda title: show_waiting(title, say.shows),
        )  # fmt: skip


def require_judging(recipe: DistillRecipe, teacher: Teacher, folder: Path, device: torch.device, say: Talk) -> None:
    """Makes the judge before hours of training, and says which figures will be left out.

    Raises:
        UserError: naming the setting.
    """
    evaluation, teacher = recipe.evaluation, apply_protocol(recipe, teacher, device)
    judge = find_judge(recipe, teacher, folder, device, say)
    if judge is not None:
        reference = judge.reference("train")
        require_enough_samples(reference, evaluation.samples, deciding_samples(recipe))
        for sentence in left_out(all_metrics(reference), reference, evaluation.samples):
            say(f"evaluation: {sentence}")


def judge_points(recipe: DistillRecipe, teacher: Teacher, rows: list[Candidate], folder: Path, say: Talk) -> Evaluation:
    """Distances to exact samples.

    Raises:
        UserError: for a teacher of which no exact samples can be drawn.
    """
    evaluation = recipe.evaluation
    reference = point_reference(teacher, evaluation.samples)
    if reference is None:
        raise UserError(NO_JUDGE)
    say(f"judging {evaluation.samples:,} points each")
    write_samples(folder, rows, first_seed=evaluation.first_seed, real=reference.real, is_points=True)
    return evaluate_points(
        rows, reference.real, reference.held_out, reference.modes, evaluation.samples, evaluation.first_seed,
        teacher=teacher.sha256,
    )  # fmt: skip
