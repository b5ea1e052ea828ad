"""What teaching a teacher costs, as measured: its network is built, asked and taught a few steps, then thrown away."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unistep.api.teaching import build_teaching, image_stream, teacher_config
from unistep.data import ImageDataset, load_images
from unistep.evaluation import Judge, load_judge
from unistep.evaluation.train_judge import train_judge
from unistep.methods.base import Method
from unistep.planning.calls import CallCosts, call_costs
from unistep.planning.line import Line
from unistep.planning.measure import META, ask, rehearse_training
from unistep.planning.sizes import allocated, nbytes
from unistep.planning.stand import Stand
from unistep.planning.training import TrainingCosts
from unistep.recipes.schema import TeachRecipe
from unistep.teachers.checkpoint import teacher_from_config
from unistep.teachers.teacher import Teacher
from unistep.training.distributed import unwrap

SHOWN = 500  # images that a judge is shown at once, by itself


@dataclass(frozen=True, kw_only=True)
class JudgeCosts:
    """A judge: to have it and to ask it.

    Attributes:
        judge: the judge, or in its place one that was trained for two steps.
        call: one batch of images.
        step: seconds of a step of its training; 0 for one that is there already.
        memory: bytes that its training takes at most.
    """

    judge: Judge
    call: CallCosts
    step: float = 0.0
    memory: int = 0
    at_once: int = SHOWN

    @property
    def weights(self) -> int:
        """Bytes of its file."""
        return len(self.judge.weights_file())

    @property
    def row(self) -> int:
        """Bytes that the features of one image take on the disk: float16, and two classes."""
        return 2 * self.judge.reference("train").features.shape[1] + 8


@dataclass(frozen=True, kw_only=True)
class TeachCosts:
    """A teach recipe as measured; where its network does not fit, nothing but sizes.

    Attributes:
        count, images: how many images, and bytes of all of them.
        training: its steps.
        teacher: the network, as good as untrained.
        call: one evaluation of it.
        judge: of its samples, if there is one.
    """

    count: int
    images: int
    training: TrainingCosts
    teacher: Teacher
    call: CallCosts | None = None
    judge: JudgeCosts | None = None

    @property
    def still_held(self) -> int:
        """Bytes of networks that are in memory as long as these costs are."""
        return allocated(self.teacher.denoiser)


def rehearse_teaching(recipe: TeachRecipe, stand: Stand) -> TeachCosts:
    """Measures a teach recipe.

    Raises:
        UserError: for mistakes in recipe or data, as `teach` does.
    """
    data = load_images(recipe.data)
    config = teacher_config(recipe, data)

    def build(device: torch.device) -> Method:
        if device == META:
            with META:  # weights that are to be replaced need not be there
                return build_teaching(recipe.model_copy(update={"init": None}), config, META)
        return build_teaching(recipe, config, device)

    costs, method = rehearse_training(
        build, lambda training: image_stream(training, data, config, stand.device), recipe.training, stand
    )
    denoiser = unwrap(method.networks[method.averaged])
    teacher = teacher_from_config(denoiser, config, source=recipe.name, sha256="")  # type: ignore[arg-type]
    images = nbytes([data.images] if data.labels is None else [data.images, data.labels])
    found = TeachCosts(count=len(data), images=images, training=costs, teacher=teacher)
    if not costs.steps:
        return found
    return replace(found, call=ask(teacher, stand), judge=judge_of_images(recipe, data, stand))


def judge_of_images(recipe: TeachRecipe, data: ImageDataset, stand: Stand) -> JudgeCosts | None:
    """The judge that a teach recipe names; one that is to be trained on the images is trained for two steps."""
    if recipe.evaluation.judge is None:
        return None
    images = torch.zeros(SHOWN, *data.shape, dtype=torch.uint8)
    if recipe.evaluation.judge != "train":
        return judge_costs(load_judge(recipe.evaluation.judge), images, stand)
    some = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:SHOWN]
    labels = None if data.labels is None else data.labels[some]

    def train(steps: int) -> Judge:
        return train_judge(data.images[some], labels, steps=steps, names=data.names)

    floor = stand.meter.start()
    seconds: dict[float, float] = {steps: stand.timed(lambda steps=steps: train(steps)) for steps in (1, 3)}
    step, memory = Line.through(seconds).slope, stand.meter.peak() - floor
    return replace(judge_costs(train(2), images, stand), step=step, memory=memory)


def judge_costs(judge: Judge, images: Tensor, stand: Stand) -> JudgeCosts:
    """What it costs to show images uint8 [n, c, h, w] to a judge, n at most at once.

    Raises:
        UserError: for images that it cannot see.
    """
    judge.network.to(stand.device)
    return JudgeCosts(judge=judge, call=call_costs(lambda rows: judge.features(images[:rows]), len(images), stand))
