"""What teaching a teacher costs, as measured: its network is built, asked and taught a few steps, then thrown away."""

from dataclasses import dataclass, replace

import torch

from unistep.costing.benchmark import Benchmark
from unistep.costing.calls import CallCosts
from unistep.costing.evaluation import SHOWN, JudgeCosts, judge_on, named_judge
from unistep.costing.measure import META, ask, rehearse_training
from unistep.costing.sizes import allocated, nbytes
from unistep.costing.training import TrainingCosts
from unistep.data import ImageDataset, load_images
from unistep.methods.base import Method
from unistep.recipes.schema import TeachRecipe
from unistep.recipes.sections import EvaluationConfig
from unistep.run.console import Talk
from unistep.run.reference_images import splits_of
from unistep.run.teach import build_teaching, image_stream
from unistep.run.teach_config import conditioning, teacher_config
from unistep.teachers.checkpoint import teacher_from_config
from unistep.teachers.teacher import Teacher
from unistep.training.distributed import unwrap


@dataclass(frozen=True, kw_only=True)
class TeachCosts:
    """A teach recipe as measured; where its network does not fit, nothing but sizes.

    Attributes:
        images: bytes of the images it learns from.
        training: its steps.
        teacher: the network, as good as untrained.
        call: one evaluation of it.
        judge: of its samples, if there is one.
    """

    images: int
    training: TrainingCosts
    teacher: Teacher
    call: CallCosts | None = None
    judge: JudgeCosts | None = None

    @property
    def still_held(self) -> int:
        """Bytes of networks that are in memory as long as these costs are."""
        return allocated(self.teacher.denoiser)


def rehearse_teaching(recipe: TeachRecipe, stand: Benchmark, say: Talk) -> TeachCosts:
    """Measures a teach recipe.

    Args:
        recipe: what to measure.
        stand: where.
        say: told that it is measured.

    Raises:
        UserError: for mistakes in recipe or data, as `teach` does.
    """
    data = load_images(recipe.data)
    conditioner, labels = conditioning(recipe, data, stand.device)
    config = teacher_config(recipe, data, conditioner)

    def build(device: torch.device) -> Method:
        if device != META:
            return build_teaching(recipe, config, device)
        with META:  # weights that are to be replaced need not be there
            return build_teaching(recipe.model_copy(update={"init": None}), config, META)

    costs, method = rehearse_training(
        build, lambda training: image_stream(
            recipe.model_copy(update={"training": training}), data, conditioner, labels, stand.device
        ), recipe.training, stand,
        lambda: say(f"measuring recipe {recipe.name}"),
    )  # fmt: skip
    denoiser = unwrap(method.networks[method.ema_network])
    teacher = teacher_from_config(denoiser, config, source=recipe.name, sha256="")  # type: ignore[arg-type]
    found = TeachCosts(images=bytes_of(data), training=costs, teacher=teacher)
    if not costs.steps:
        return found
    return replace(found, call=ask(teacher, stand), judge=judge_of_images(recipe, data, stand))


def judge_of_images(recipe: TeachRecipe, data: ImageDataset, stand: Benchmark) -> JudgeCosts | None:
    """The judge of a teacher in the making."""
    images = torch.zeros(SHOWN, *data.shape, dtype=torch.uint8)
    if recipe.evaluation.judge is None:
        return None
    if recipe.evaluation.judge == "train":
        return judge_on(data, images, stand, perceptual=True)
    return named_judge(recipe.evaluation.judge, images, lambda: real_images_of(recipe.evaluation, len(data)), stand)


def real_images_of(evaluation: EvaluationConfig, others: int = 0) -> int:
    """How many real images an evaluation looks at: both splits of those it names, or so many others."""
    if evaluation.reference is not None:
        return 0
    return sum(len(load_images(split)) for split in splits_of(evaluation).values()) or others


def bytes_of(data: ImageDataset) -> int:
    """Of images and labels."""
    return nbytes([data.images] if data.labels is None else [data.images, data.labels])
