"""A user's own network as a teacher: any nn.Module, a noise process and what the network predicts."""

import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from unistep.errors import UserError
from unistep.networks.precision import HALF, own_precision, weights_dtype
from unistep.prediction import Prediction, require_prediction, require_x0_on_grid, to_x0
from unistep.process.base import NoiseProcess
from unistep.teachers.codecs import PixelCodec, PointCodec
from unistep.teachers.conditioners import LabelConditioner
from unistep.teachers.teacher import Teacher
from unistep.types import Cond
from unistep.weighting import training_weighting


class ModuleDenoiser(nn.Module):
    """A foreign network, converted to predict the clean sample at the border and nowhere else.

    One in half precision is given x_t in its own type, t as it is, and runs outside autocast.

    Args:
        network: called as network(x_t [b, *dims], t [b]) or network(x_t, t, cond) when `conditional`.
        process: noise process whose times the network was trained with.
        prediction: what the network predicts.
        conditional: whether the network takes a condition.
        sigma_data: standard deviation of the data, which "F" is read with and the other kinds do without.

    Raises:
        UserError: for an unknown prediction, or one that does not determine x_0 at some time of the process's grid.
    """

    adapted = False  # whether the network carries layers of LoRA, see `networks.lora.Adapted`

    def __init__(self, network: nn.Module, process: NoiseProcess, prediction: Prediction, conditional: bool,
                 sigma_data: float = 0.5):  # fmt: skip
        super().__init__()
        require_prediction(prediction)
        require_x0_on_grid(prediction, process, sigma_data)
        self.network, self.process = network, process
        self.prediction: Prediction = prediction
        self.conditional, self.sigma_data = conditional, sigma_data

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond = None) -> Tensor:
        dtype = weights_dtype(self.network)
        x = x_t.to(dtype) if dtype in HALF else x_t
        with own_precision(x.device, dtype, self.adapted):
            output = self.network(x, t, cond) if self.conditional else self.network(x, t)
        if output.shape != x_t.shape:
            raise UserError(f"network: found output {tuple(output.shape)}, expected x_t's {tuple(x_t.shape)}")
        output = output.to(x_t.dtype)  # under autocast it comes in bf16, too coarse for the differences below
        return to_x0(output, x_t, t, self.prediction, self.process, self.sigma_data)


def identity(module: nn.Module, reading: dict[str, Any]) -> str:
    """sha256 over the network's class and layers, all its parameters and buffers, and how it is read (plain values).

    The code of its `forward` is not covered, nor are attributes that its `repr` does not show.
    """
    kind = type(module)
    described = [kind.__module__, kind.__qualname__, repr(module), reading]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
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
    sigma_data: float = 0.5,
    weighting: Callable[[Tensor], Tensor] | None = None,
    source: str = "your own module",
) -> Teacher:
    """A teacher from a user's network.

    Args:
        network: called as network(x_t, t), or with num_classes as network(x_t, t, labels [b] int64, -1 = no class).
        process: its noise process, for example `DiscreteVPProcess.linear()`.
        prediction: "x0", "eps", "v", "velocity", "score" or "F"; an "F" network is called with the raw x_t and t too,
            so scaling its input and noise level (EDM's c_in and c_noise) is its own affair.
        shape: dims of one sample, for example (3, 32, 32); one number means points.
        num_classes: classes the network is conditioned on, 0 for none.
        sigma_data: standard deviation of the data the network was trained on, for "F".
        weighting: weight of Eq. 6 on the x_0 error as the network was trained, t -> weight; None = that of the plain
            error of what it predicts, see `weighting.training_weight`.
        source: readable name for reports.

    Raises:
        UserError: for an unknown prediction, one that says nothing about x_0 somewhere on the process's grid, or a
            sigma_data that is not positive.
    """
    if not (math.isfinite(sigma_data) and sigma_data > 0):
        raise UserError(f"sigma_data: found {sigma_data}, expected a positive number")
    reading = {
        "process": process.config(),
        "prediction": prediction,
        "shape": list(shape),
        "sigma_data": sigma_data,
        "num_classes": num_classes,
    }
    return Teacher(
        denoiser=ModuleDenoiser(network, process, prediction, num_classes > 0, sigma_data),
        process=process,
        weighting=weighting or training_weighting(prediction, process, sigma_data),
        shape=shape,
        codec=PointCodec() if len(shape) == 1 else PixelCodec(),
        conditioner=LabelConditioner(num_classes) if num_classes else None,
        source=source,
        sha256=identity(network, reading),
    )
