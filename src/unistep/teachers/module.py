"""A user's own network as a teacher: any nn.Module, a noise process and what the network predicts."""

import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Size, Tensor, nn

from unistep.diffusion.prediction import Prediction, require_prediction, require_x0_on_grid, to_x0
from unistep.diffusion.process import NoiseProcess, require_process
from unistep.diffusion.weighting import training_weighting
from unistep.errors import UserError, one_line
from unistep.io.arguments import require_type
from unistep.networks.precision import HALF, own_precision, weights_dtype
from unistep.teachers.codecs import PixelCodec, PointCodec
from unistep.teachers.conditioners import LabelConditioner
from unistep.teachers.teacher import Teacher
from unistep.types import Cond


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
    process: NoiseProcess | str,
    prediction: Prediction,
    shape: tuple[int, ...],
    *,
    num_classes: int = 0,
    sigma_data: float = 0.5,
    weighting: Callable[[Tensor], Tensor] | None = None,
    value_range: tuple[float, float] = (-1.0, 1.0),
    source: str = "your own module",
) -> Teacher:
    """A teacher from a user's network.

    Args:
        network: called as network(x_t, t), or with num_classes as network(x_t, t, labels [b] int64, -1 = no class).
        process: its noise process, for example `DiscreteVPProcess.linear()`; or one by name, with its usual settings:
            "edm", "ddpm-linear", "ddpm-cosine", "sd" (scaled linear), "vp-sde" or "flow".
        prediction: "x0", "eps", "v", "velocity", "score" or "F"; an "F" network is called with the raw x_t and t too,
            so scaling its input and noise level (EDM's c_in and c_noise) is its own affair.
        shape: dims of one sample, for example (3, 32, 32); one number means points.
        num_classes: classes the network is conditioned on, 0 for none.
        sigma_data: standard deviation of the data the network was trained on, for "F".
        weighting: weight of Eq. 6 on the x_0 error as the network was trained, t -> weight; None = that of the plain
            error of what it predicts, see `weighting.training_weight`.
        value_range: what black and white are for the network, for example (0, 1) if it was trained on images in [0, 1].
        source: readable name for reports.

    Raises:
        UserError: for a network that is no module, or does not take its classes, an unknown process, a shape that is
            none, an unknown prediction, one that says nothing about x_0 somewhere on the process's grid, a
            sigma_data that is not positive, or a range that is none.
    """
    if not (math.isfinite(sigma_data) and sigma_data > 0):
        raise UserError(f"sigma_data: found {sigma_data}, expected a positive number")
    require_module(network)
    process, shape = require_process(process), require_dims(shape)
    require_count(num_classes)
    codec = PointCodec() if len(shape) == 1 else PixelCodec(*require_range(value_range))
    reading = {
        "process": process.config(),
        "prediction": prediction,
        "shape": list(shape),
        "sigma_data": sigma_data,
        "num_classes": num_classes,
        **({} if codec in (PointCodec(), PixelCodec()) else {"codec": codec.config()}),
    }
    teacher = Teacher(
        denoiser=ModuleDenoiser(network, process, prediction, num_classes > 0, sigma_data),
        process=process,
        weighting=weighting or training_weighting(prediction, process, sigma_data),
        shape=shape,
        codec=codec,
        conditioner=LabelConditioner(num_classes) if num_classes else None,
        source=source,
        sha256=identity(network, reading),
    )
    if num_classes:
        require_classes(teacher, num_classes)
    return teacher


def require_module(network: Any) -> None:
    """Refuses what is no module: its weights could be neither copied nor trained.

    Raises:
        UserError: says how to wrap a function.
    """
    if not isinstance(network, nn.Module):
        raise UserError(
            f"network: found {network!r}, expected a torch.nn.Module; a function can be the forward of one that holds "
            "its weights"
        )


def require_count(num_classes: Any) -> None:
    """Refuses what is no number of classes.

    Raises:
        UserError: saying what stands for none.
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 0:
        raise UserError(f"num_classes: found {num_classes!r}, expected a whole number, 0 for a network without classes")


def require_range(value_range: Any) -> tuple[float, float]:
    """The lowest and the highest value of a pixel.

    Raises:
        UserError: for anything but two numbers.
    """
    try:
        require_type(value_range, tuple[float, float], "value_range")
    except UserError as error:
        raise UserError(f"value_range: found {value_range!r}, expected two numbers such as (0, 1)") from error
    low, high = value_range
    return float(low), float(high)


def require_dims(shape: Any) -> tuple[int, ...]:
    """The dims of one sample.

    Raises:
        UserError: for anything but whole numbers from 1 up.
    """
    dims = tuple(shape) if isinstance(shape, tuple | list | Size) else ()
    if not dims or not all(isinstance(dim, int) and not isinstance(dim, bool) and dim > 0 for dim in dims):
        raise UserError(
            f"shape: found {shape!r}, expected the dims of one sample, such as (3, 32, 32), or (2,) for points"
        )
    return dims


@torch.no_grad()
def require_classes(teacher: Teacher, num_classes: int) -> None:
    """Calls the network with its last class.

    Raises:
        UserError: if the network has fewer classes.
    """
    tensor = next((p for p in teacher.denoiser.parameters()), torch.zeros(0))
    x = torch.zeros(1, *teacher.shape, device=tensor.device)
    t = teacher.process.time(torch.full((1,), 0.5)).to(tensor.device)
    try:
        teacher.denoiser(x, t, torch.tensor([num_classes - 1], device=tensor.device))
    except IndexError as error:
        raise UserError(
            f"num_classes: found {num_classes}, expected as many as the network has: for label {num_classes - 1} it "
            f"raised IndexError ({one_line(error)})"
        ) from error
    except (TypeError, RuntimeError):
        return  # whatever else is wrong with the network is said where it is first used
