"""What a distillation costs, as measured: its networks are built, asked and taught a few steps, then thrown away."""

import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from unistep.costing.benchmark import Benchmark
from unistep.costing.calls import CallCosts
from unistep.costing.evaluation import SHOWN, JudgeCosts, judge_on, named_judge
from unistep.costing.measure import META, ask, decode, rehearse_training, require_whole_parts
from unistep.costing.sizes import allocated, nbytes
from unistep.costing.synthetic_batches import synthetic_batches
from unistep.costing.teach import TeachCosts, real_images_of, rehearse_teaching
from unistep.costing.training import TrainingCosts
from unistep.data import load_images
from unistep.errors import UserError
from unistep.evaluation.result import Role
from unistep.io.text_files import read_json
from unistep.methods.base import Method
from unistep.networks import Generator
from unistep.networks.meta import copy_to_meta, is_on_meta
from unistep.recipes.load import recipe_of
from unistep.recipes.schema import DistillRecipe, TeachRecipe
from unistep.recipes.sections import EvaluationConfig, ExactData
from unistep.run.console import Talk
from unistep.run.distill import build_method_inputs
from unistep.run.evaluate import candidates
from unistep.run.extractors import point_reference, require_images_for_judge
from unistep.run.fit import build_fit, fit_config, fit_of, mixture_of, samples_of
from unistep.run.reference_images import splits_of
from unistep.run.teacher import StudentInit, apply_lora, find_teacher
from unistep.run.training_images import read_images, real_images
from unistep.teachers.checkpoint import teacher_from_config
from unistep.teachers.checkpoint_config import denoiser_from_config
from unistep.teachers.codecs import codec_networks, move_codec
from unistep.teachers.teacher import Teacher
from unistep.training.batches import BatchSource, EncodedImages
from unistep.training.config import TrainingConfig
from unistep.training.distributed import unwrap
from unistep.training.prepare import prepare_network


@dataclass(frozen=True, kw_only=True)
class EvaluatedRow:
    """A row of the evaluation's table: whose samples, at how many network evaluations each.

    `cached`: they are on file; `timed`: latency and throughput are measured.
    """

    role: Role
    nfe: int
    cached: bool
    timed: bool


@dataclass(frozen=True, kw_only=True)
class DistillCalls:
    """What networks are asked without learning.

    Attributes:
        teacher, network: one evaluation of the teacher, and of a network like the generator's.
        decode: a batch of samples made visible.
        judge: of images, if there is one.
        nfe: network evaluations of a sample of the generator.
        rows: of the evaluation; none where nothing can be judged.
    """

    teacher: CallCosts
    network: CallCosts
    decode: CallCosts
    judge: JudgeCosts | None
    nfe: int
    rows: tuple[EvaluatedRow, ...]

    def at_once(self, evaluation: EvaluationConfig, count: int) -> int:
        """Samples made at a time where `count` are judged: points all at once."""
        return count if self.judge is None else evaluation.batch


@dataclass(frozen=True, kw_only=True)
class DistillCosts:
    """A distill recipe as measured; where its networks do not fit, nothing but sizes.

    Attributes:
        start: teacher, and the network that generator and others start from.
        training: the distillation's.
        images: bytes of the real images it learns from.
        taught: the teacher's own training, where it is taught first.
        fit: the training of a network for a teacher without weights.
        calls: what networks are asked without learning.
    """

    start: StudentInit
    training: TrainingCosts
    images: int = 0
    taught: tuple[TeachRecipe, TeachCosts] | None = None
    fit: TrainingCosts | None = None
    calls: DistillCalls | None = None

    @property
    def still_held(self) -> int:
        """Bytes of networks that are in memory as long as these costs are."""
        teachers = {id(teacher): teacher for teacher in (self.start.teacher, self.start.network)}
        return sum(allocated(network) for teacher in teachers.values() for network in frozen_of(teacher).values())


def rehearse_distillation(
    recipe: DistillRecipe, own: Teacher | None, folder: Path, stand: Benchmark, say: Talk
) -> DistillCosts:
    """Measures a distill recipe: the teacher's stage first, then the distillation.

    Args:
        recipe: what to measure.
        own: the caller's own teacher, instead of the recipe's.
        folder: of the run, which is looked into for stored features and left as it is.
        stand: where.
        say: told what is measured.

    Raises:
        UserError: for mistakes in recipe, data or teacher, as `distill` does.
    """
    require_judge(recipe, own)
    require_whole_parts(recipe.training)  # before time is spent on the teacher
    taught = None
    if own is None and recipe.teacher.teach is not None:
        teaching = recipe_of(TeachRecipe, recipe.teacher.teach, [f"training.device={stand.device.type}"])
        taught = teaching, rehearse_teaching(teaching, stand, say)
    teacher = taught[1].teacher if taught else own or loaded_teacher(recipe, folder, stand, say)
    start, fit = StudentInit(teacher, teacher), None
    if not any(True for _ in teacher.denoiser.parameters()):
        fit, network = rehearse_fit(recipe, teacher, stand, say)
        start = StudentInit(teacher, network)
    start = apply_lora(recipe, start)
    costs, method = rehearse_method(recipe, start, stand, say)
    images = image_bytes(recipe, teacher)
    found = DistillCosts(start=start, training=costs, images=images, taught=taught, fit=fit)
    return replace(found, calls=calls_of(found, recipe, method, folder, stand)) if costs.steps else found


# ----------------------------------------------------------------------------------------------------------- teachers


def loaded_teacher(recipe: DistillRecipe, folder: Path, stand: Benchmark, say: Talk) -> Teacher:
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
    config = read_json(description, "restore the file")
    with META:
        denoiser = denoiser_from_config(config, description)
    return teacher_from_config(denoiser, config, source=str(recipe.teacher.load), sha256="")


def weights_file(spec: str) -> Path | None:
    """The file that a teacher's weights are in, if it is one of the user's own."""
    place = Path(spec.removeprefix("edm:"))
    files = (place, *(folder / "model.safetensors" for folder in (place, place / "teacher")))
    return next((file for file in files if file.is_file()), None)


def rehearse_fit(recipe: DistillRecipe, teacher: Teacher, stand: Benchmark, say: Talk) -> tuple[TrainingCosts, Teacher]:
    """Measures the fit of a network to a teacher without weights; the network, as good as untrained."""
    mixture, fit = mixture_of(teacher), fit_of(recipe, teacher)
    config = fit_config(fit, teacher, mixture)
    few = min(fit.samples, fit.training.batch)

    def batches(training: TrainingConfig) -> BatchSource:
        return samples_of(fit.model_copy(update={"samples": few, "training": training}), teacher, mixture, stand.device)

    def build(device: torch.device) -> Method:
        with META if device == META else nullcontext():
            return build_fit(fit, teacher, config, device)

    teacher.denoiser.to(stand.device)
    costs, method = rehearse_training(
        build, batches, fit.training, stand, lambda: say("measuring the fit"), frozen_of(teacher)
    )
    denoiser = unwrap(method.networks[method.ema_network])
    return costs, teacher_from_config(denoiser, config, source="fit", sha256="")  # type: ignore[arg-type]


def frozen_of(teacher: Teacher) -> dict[str, nn.Module]:
    """The networks that come with a teacher, by name."""
    others = codec_networks(teacher.codec)
    return {"teacher": teacher.denoiser, **{f"codec {i}" if i else "codec": m for i, m in enumerate(others)}}


# ------------------------------------------------------------------------------------------------------- distillation


def rehearse_method(
    recipe: DistillRecipe, start: StudentInit, stand: Benchmark, say: Talk
) -> tuple[TrainingCosts, Method]:
    """Measures the recipe's method on batches of noise."""
    if not is_on_meta(start.teacher.denoiser):
        start.teacher.denoiser.to(stand.device)
        move_codec(start.teacher.codec, stand.device)
    inputs = build_method_inputs(recipe, start, stand.device)
    network = replace(start.network, denoiser=copy_to_meta(start.network.denoiser))
    blank = dataclasses.replace(
        inputs,
        teacher=replace(start.teacher, denoiser=copy_to_meta(start.teacher.denoiser)),
        copy=replace(start, network=network).copy,
        prepare=lambda network: prepare_network(network, recipe.training, META),
    )

    def batches(training: TrainingConfig) -> BatchSource:
        return synthetic_batches(recipe.model_copy(update={"training": training}), start.teacher, stand.device)

    frozen, distance = frozen_of(start.teacher), inputs.regression
    frozen |= {"distance": distance} if isinstance(distance, nn.Module) else {}
    return rehearse_training(
        lambda device: recipe.method.build(blank if device == META else inputs),
        batches, recipe.training, stand, lambda: say("measuring the distillation"), frozen,
    )  # fmt: skip


def image_bytes(recipe: DistillRecipe, teacher: Teacher) -> int:
    """Of the real images that the method learns from; they are loaded, as `distill` does, and let go."""
    if recipe.data is None or not recipe.method.needs_data:
        return 0
    if isinstance(recipe.data, ExactData):
        return 4 * recipe.data.count * torch.Size(teacher.shape).numel()
    images = real_images(recipe.data, teacher, read_images(recipe))
    return nbytes([images.images]) if isinstance(images, EncodedImages) else 0


# --------------------------------------------------------------------------------------------------------- evaluation


def calls_of(
    costs: DistillCosts, recipe: DistillRecipe, method: Method, folder: Path, stand: Benchmark
) -> DistillCalls:
    """What it costs to ask the networks and the judge, and the rows of the evaluation."""
    start, judge = costs.start, judge_of_run(recipe, costs, stand)
    generator = unwrap(method.networks[method.ema_network])
    assert isinstance(generator, Generator)
    rows = ()
    if judge is not None or point_reference(start.teacher, 1) is not None:
        listed = candidates(recipe, start.teacher, generator, judge and judge.judge, folder, stand.device)
        rows = tuple(
            EvaluatedRow(role=r.role, nfe=r.nfe, cached=r.cached is not None, timed=r.latency is not None)
            for r in listed
        )
    teacher = ask(start.teacher, stand)
    network = teacher if start.network is start.teacher else ask(start.network, stand)
    return DistillCalls(
        teacher=teacher, network=network, decode=decode(start.teacher, stand), judge=judge,
        nfe=generator.steps.count, rows=rows,
    )  # fmt: skip


def require_judge(recipe: DistillRecipe, own: Teacher | None) -> None:
    """Refuses a judge that is to be trained where there are no images to train it on."""
    if recipe.evaluation.judge == "train":
        require_images_for_judge(recipe.evaluation, None if own is not None else recipe.teacher.teach)


def judge_of_run(recipe: DistillRecipe, costs: DistillCosts, stand: Benchmark) -> JudgeCosts | None:
    """The judge of the evaluation; `train` means one on the recipe's real images, or the teacher's own judge.

    Raises:
        UserError: if there is none at that place, or it sees other images than the teacher's.
    """
    evaluation, teacher = recipe.evaluation, costs.start.teacher
    if evaluation.judge is None:
        return None
    images = teacher.codec.decode(torch.zeros(1, *teacher.shape)).cpu().expand(SHOWN, -1, -1, -1)
    if evaluation.judge != "train":
        return named_judge(evaluation.judge, images, lambda: real_images_of(evaluation), stand)
    if evaluation.real is not None:
        return judge_on(load_images(splits_of(evaluation)["train"]), images, stand)
    assert costs.taught is not None  # `require_judge` has seen to it
    known = costs.taught[1].judge
    return known and replace(known, step=0.0, real=0)  # it is there by then
