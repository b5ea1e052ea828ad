"""A user's own network as a teacher: any nn.Module, a noise process and what the network predicts."""

import hashlib
import json
from collections.abc import Callable

from torch import Tensor, nn

from unistep.errors import UserError
from unistep.prediction import Prediction, to_x0
from unistep.process.base import NoiseProcess
from unistep.teachers.codecs import PixelCodec, PointCodec
from unistep.teachers.conditioners import LabelConditioner
from unistep.teachers.teacher import Teacher
from unistep.types import Cond
from unistep.weighting import default_weighting


class ModuleDenoiser(nn.Module):
    """A foreign network, converted to predict the clean sample at the border and nowhere else.

    Args:
        network: called as network(x_t [b, *dims], t [b]) or network(x_t, t, cond) when `conditional`.
        process: noise process whose times the network was trained with.
        prediction: what the network predicts.
        conditional: whether the network takes a condition.
    """

    def __init__(self, network: nn.Module, process: NoiseProcess, prediction: Prediction, conditional: bool):
        super().__init__()
        self.network, self.process = network, process
        self.prediction: Prediction = prediction
        self.conditional = conditional

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond = None) -> Tensor:
        output = self.network(x_t, t, cond) if self.conditional else self.network(x_t, t)
        if output.shape != x_t.shape:
            raise UserError(f"network: found output {tuple(output.shape)}, expected x_t's {tuple(x_t.shape)}")
        return to_x0(output, x_t, t, self.prediction, self.process)


def identity(module: nn.Module, process: NoiseProcess, prediction: Prediction) -> str:
    """sha256 over how the network is read (process, prediction) and all its parameters and buffers."""
    digest = hashlib.sha256(json.dumps([process.config(), prediction], sort_keys=True).encode())
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().double().numpy().tobytes())
    return digest.hexdigest()


def teacher_from_module(
    network: nn.Module,
    process: NoiseProcess,
    prediction: Prediction,
    shape: tuple[int, ...],
    *,
    num_classes: int = 0,
    weighting: Callable[[Tensor], Tensor] | None = None,
    source: str = "your own module",
) -> Teacher:
    """A teacher from a user's network.

    Args:
        network: called as network(x_t, t), or with num_classes as network(x_t, t, labels [b] int64, -1 = no class).
        process: its noise process, for example `DiscreteVPProcess.linear()`.
        prediction: "x0", "eps", "v", "velocity", "score" or "F".
        shape: dims of one sample, for example (3, 32, 32); one number means points.
        num_classes: classes the network is conditioned on, 0 for none.
        weighting: weight of Eq. 6 as the network was trained, t -> weight; None = the process's usual one.
        source: readable name for reports.
    """
    return Teacher(
        denoiser=ModuleDenoiser(network, process, prediction, conditional=num_classes > 0),
        process=process,
        weighting=weighting or default_weighting(process),
        shape=shape,
        codec=PointCodec() if len(shape) == 1 else PixelCodec(),
        conditioner=LabelConditioner(num_classes) if num_classes else None,
        source=source,
        sha256=identity(network, process, prediction),
    )
