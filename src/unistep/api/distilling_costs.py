"""What a distillation costs, as measured: its networks are built, asked and taught a few steps, then thrown away."""

import json
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from unistep.api.distilling import build_method, build_streams
from unistep.api.evaluating import candidates
from unistep.api.fitting import build_fit, fit_config, fit_of, mixture_of, samples_of
from unistep.api.judges import point_reference
from unistep.api.talk import Talk
from unistep.api.teachers import Starting, find_teacher
from unistep.api.teaching_costs import SHOWN, JudgeCosts, TeachCosts, judge_costs, rehearse_teaching
from unistep.errors import UserError
from unistep.evaluation import load_judge
from unistep.evaluation.result import Role
from unistep.methods.base import Method
from unistep.networks import Generator
from unistep.planning.calls import CallCosts
from unistep.planning.measure import META, ask, rehearse_training
from unistep.planning.sizes import allocated, on_meta
from unistep.planning.stand import Stand
from unistep.planning.stand_ins import StandInPairs
from unistep.planning.training import TrainingCosts
from unistep.recipes.load import recipe_of
from unistep.recipes.schema import DistillRecipe, EvaluationConfig, TeachRecipe
from unistep.teachers.checkpoint import teacher_from_config
from unistep.teachers.checkpoint_config import denoiser_from_config
from unistep.teachers.teacher import Teacher
from unistep.training.batches import BatchSource
from unistep.training.config import TrainingConfig
from unistep.training.distributed import unwrap


@dataclass(frozen=True, kw_only=True)
class EvaluatedRow:
    """A row of the evaluation's table: whose samples, at how many network evaluations each, or from a file."""

    role: Role
    nfe: int
    cached: bool


@dataclass(frozen=True, kw_only=True)
class DistillCalls:
    """What networks are asked without learning.

    Attributes:
        teacher, network: one evaluation of the teacher, and of a network like the generator's.
        judge: of images, if there is one.
        rows: of the evaluation; none where nothing can be judged.
    """

    teacher: CallCosts
    network: CallCosts
    judge: JudgeCosts | None
    rows: tuple[EvaluatedRow, ...]

    @property
    def nfe(self) -> int:
        """Network evaluations of a sample of the generator."""
        return next((row.nfe for row in self.rows if row.role == "student"), 1)

    def at_once(self, evaluation: EvaluationConfig, count: int) -> int:
        """Samples made at a time where `count` are judged: points all at once."""
        return count if self.judge is None else evaluation.batch


@dataclass(frozen=True, kw_only=True)
class DistillCosts:
    """A distill recipe as measured; where its networks do not fit, nothing but sizes.

    Attributes:
        start: teacher, and the network that generator and others start from.
        training: the distillation's.
        taught: the teacher's own training, where it is taught first.
        fit: the training of a network for a teacher without weights.
        calls: what networks are asked without learning.
    """

    start: Starting
    training: TrainingCosts
    taught: tuple[TeachRecipe, TeachCosts] | None = None
    fit: TrainingCosts | None = None
    calls: DistillCalls | None = None

    @property
    def still_held(self) -> int:
        """Bytes of networks that are in memory as long as these costs are."""
        denoisers = {id(t): t.denoiser for t in (self.start.teacher, self.start.network)}
        return sum(allocated(denoiser) for denoiser in denoisers.values())


def rehearse_distillation(
    recipe: DistillRecipe, own: Teacher | None, folder: Path, stand: Stand, say: Talk
) -> DistillCosts:
    """Measures a distill recipe: the teacher's stage first, then the distillation.

    Args:
        recipe: what to measure.
        own: the caller's own teacher, instead of the recipe's.
        folder: of the run, which is looked into for stored features and left as it is.
        stand: where.
        say: told what is measured.

    Raises:
        UserError: for mistakes in recipe or teacher, as `distill` does.
    """
    if recipe.evaluation.judge == "train" and (own is not None or recipe.teacher.teach is None):
        raise UserError("evaluation.judge: found train, which needs teacher.teach; name a folder or embedded:NAME")
    taught = None
    if own is None and recipe.teacher.teach is not None:
        say(f"measuring recipe {recipe.teacher.teach}, which teaches the teacher")
        teaching = recipe_of(TeachRecipe, recipe.teacher.teach, [f"training.device={stand.device.type}"])
        taught = teaching, rehearse_teaching(teaching, stand)
    teacher = taught[1].teacher if taught else own or loaded_teacher(recipe, folder, stand, say)
    start, fit = Starting(teacher, teacher), None
    if not any(True for _ in teacher.denoiser.parameters()):
        fit, network = rehearse_fit(recipe, teacher, stand)
        start = Starting(teacher, network)
    say("measuring the distillation")
    costs, method = rehearse_training(
        lambda device: build_method(recipe, start_on(start, device), device),
        lambda training: build_streams(training, teacher, stand_in_pairs(recipe, teacher), stand.device),
        recipe.training, stand, teacher,
    )  # fmt: skip
    found = DistillCosts(start=start, training=costs, taught=taught, fit=fit)
    return replace(found, calls=calls_of(found, recipe, method, folder, stand)) if costs.steps else found


def loaded_teacher(recipe: DistillRecipe, folder: Path, stand: Stand, say: Talk) -> Teacher:
    """The teacher that the recipe loads; its shapes alone where its weights do not fit into memory.

    Raises:
        UserError: if there is none, or one that does not fit and whose file does not tell its shapes.
    """
    file = weights_file(recipe.teacher.load or "")
    if file is None or file.stat().st_size < stand.memory:
        return find_teacher(recipe, folder, stand.device, say, quiet=True)
    description = file.with_name("config.json")
    if not description.is_file():
        raise UserError(f"{file}: found {file.stat().st_size:,} bytes of weights, expected less than memory holds here")
    config = json.loads(description.read_text())
    with META:
        denoiser = denoiser_from_config(config, description)
    return teacher_from_config(denoiser, config, source=str(recipe.teacher.load), sha256="")


def weights_file(spec: str) -> Path | None:
    """The file that a teacher's weights are in, if it is one of the user's own."""
    place = Path(spec.removeprefix("edm:"))
    files = (place, *(folder / "model.safetensors" for folder in (place, place / "teacher")))
    return next((file for file in files if file.is_file()), None)


def start_on(start: Starting, device: torch.device) -> Starting:
    """The start with its networks on a device, as shapes alone on the meta device."""
    if device != META:
        start.teacher.denoiser.to(device)
        return start
    teacher, network = (replace(t, denoiser=on_meta(t.denoiser)) for t in (start.teacher, start.network))
    return Starting(teacher, teacher if start.network is start.teacher else network)


def stand_in_pairs(recipe: DistillRecipe, teacher: Teacher) -> StandInPairs | None:
    """As many pairs as the recipe asks for, if it needs any."""
    needed = recipe.method.needs_pairs and recipe.pairs is not None
    return StandInPairs(teacher, recipe.pairs.count) if needed and recipe.pairs else None


def rehearse_fit(recipe: DistillRecipe, teacher: Teacher, stand: Stand) -> tuple[TrainingCosts, Teacher]:
    """Measures the fit of a network to a teacher without weights; the network, as good as untrained."""
    mixture, fit = mixture_of(teacher), fit_of(recipe, teacher)
    config = fit_config(fit, teacher, mixture)
    few = min(fit.samples, fit.training.batch)

    def batches(training: TrainingConfig) -> BatchSource:
        return samples_of(fit.model_copy(update={"samples": few, "training": training}), teacher, mixture, stand.device)

    def build(device: torch.device) -> Method:
        with META if device == META else nullcontext():
            return build_fit(fit, teacher, config, device)

    costs, method = rehearse_training(build, batches, fit.training, stand, teacher)
    denoiser = unwrap(method.networks[method.averaged])
    return costs, teacher_from_config(denoiser, config, source="fit", sha256="")  # type: ignore[arg-type]


def calls_of(costs: DistillCosts, recipe: DistillRecipe, method: Method, folder: Path, stand: Stand) -> DistillCalls:
    """What it costs to ask the networks and the judge, and the rows of the evaluation."""
    start, judge = costs.start, judge_of_run(recipe, costs, stand)
    generator = unwrap(method.networks[method.averaged])
    assert isinstance(generator, Generator)
    rows = ()
    if judge is not None or point_reference(start.teacher, 1) is not None:
        listed = candidates(recipe, start.teacher, generator, judge and judge.judge, folder, stand.device)
        rows = tuple(EvaluatedRow(role=row.role, nfe=row.nfe, cached=row.cached is not None) for row in listed)
    teacher = ask(start.teacher, stand)
    network = teacher if start.network is start.teacher else ask(start.network, stand)
    return DistillCalls(teacher=teacher, network=network, judge=judge, rows=rows)


def judge_of_run(recipe: DistillRecipe, costs: DistillCosts, stand: Stand) -> JudgeCosts | None:
    """The judge of the evaluation; `train` means the one that the teacher is taught under.

    Raises:
        UserError: if there is none at that place, or it sees other images than the teacher's.
    """
    spec, teacher = recipe.evaluation.judge, costs.start.teacher
    if spec is None:
        return None
    if spec != "train":
        return judge_costs(load_judge(spec), teacher.codec.decode(torch.zeros(SHOWN, *teacher.shape)), stand)
    return costs.taught[1].judge if costs.taught is not None else None
