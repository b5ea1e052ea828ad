"""What it costs to have a judge and to ask it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unistep.costing.benchmark import Benchmark
from unistep.costing.calls import CallCosts, call_costs
from unistep.costing.line import Line
from unistep.data import ImageDataset
from unistep.evaluation.extractors.features import Judge, perceptual_bytes
from unistep.evaluation.extractors.train import train_judge, train_perceptual
from unistep.run.extractors import AnyJudge, judge_of

SHOWN = 256  # images that a judge is shown at once where its speed is measured
LOOKED_AT_ONCE = 500  # where it looks at a whole data set
LEARNT = 500  # images that a judge is trained on for a few steps


@dataclass(frozen=True, kw_only=True)
class JudgeCosts:
    """A judge as measured.

    Attributes:
        judge: the judge, or in its place one that was trained for a few steps.
        call: one batch of images.
        features: that it sees an image by.
        real: real images that it is shown before anything else, because their features are not stored yet.
        step: seconds of a step of its training; 0 for one that is there already.
        memory: bytes that its training takes at most.
        beside: bytes of the network for perceptual losses that is trained beside it, 0 where none is.
    """

    judge: AnyJudge
    call: CallCosts
    features: int
    real: int = 0
    step: float = 0.0
    memory: int = 0
    beside: int = 0

    @property
    def row(self) -> int:
        """Bytes of one image's features on the disk: float16, and two classes."""
        return 2 * self.features + 8

    @property
    def file(self) -> int:
        """Bytes of a judge that is trained; 0 for another."""
        return len(self.judge.weights_file()) + self.beside if isinstance(self.judge, Judge) and self.step else 0


def named_judge(spec: str, images: Tensor, real: Callable[[], int], stand: Benchmark) -> JudgeCosts:
    """The judge that a recipe names.

    Args:
        spec: `embedded:NAME`, a folder, `efficientnet-lite0` or `inception:PATH`.
        images: uint8 [n, c, h, w], as many as it is shown at once.
        real: how many real images one that knows none must look at first.
        stand: where to measure.

    Raises:
        UserError: if there is none, or images that it cannot see.
    """
    judge = judge_of(spec)
    costs = asked_judge(judge, images, stand)
    return costs if isinstance(judge, Judge) else replace(costs, real=real())


def judge_on(data: ImageDataset, images: Tensor, stand: Benchmark, perceptual: bool = False) -> JudgeCosts:
    """A judge that is to be trained on a data set: on some of it, for a few steps.

    Args:
        data: the images.
        images: uint8 [n, c, h, w], as many as it is shown at once.
        stand: where to measure.
        perceptual: whether a network for perceptual losses is trained beside it, as `teach` does.
    """
    some = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:LEARNT]
    labels = None if data.labels is None else data.labels[some]
    made: list[Judge] = []
    beside: list[int] = [0]

    def train(steps: int) -> None:
        made.append(train_judge(data.images[some], labels, steps=steps, names=data.names))
        if perceptual:
            network, description = train_perceptual(data.images[some], labels, steps=steps)
            beside.append(len(perceptual_bytes(network, description)))

    floor = stand.meter.start()
    seconds: dict[float, float] = {steps: stand.timed(lambda steps=steps: train(steps)) for steps in (1, 3)}
    step, memory = Line.through(seconds).slope, stand.meter.peak() - floor
    costs = asked_judge(made[-1], images, stand)
    return replace(costs, step=max(step, 1e-9), memory=memory, real=len(data), beside=beside[-1])


def asked_judge(judge: AnyJudge, images: Tensor, stand: Benchmark) -> JudgeCosts:
    """What it costs to show images uint8 [n, c, h, w] to a judge, n at most at once."""
    judge.network.to(stand.device)
    features = judge.features(images[:1])[0].shape[1]
    call = call_costs(lambda rows: judge.features(images[:rows]), len(images), stand)
    return JudgeCosts(judge=judge, call=call, features=features)
