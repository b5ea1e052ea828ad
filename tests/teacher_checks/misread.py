"""A teacher with known answers as a foreign network of any kind, and every way to misread it."""

import torch
from torch import Tensor, nn

from unistep.diffusion.prediction import Prediction, from_x0
from unistep.diffusion.process.base import NoiseProcess
from unistep.teachers.analytic import GaussianMixture
from unistep.teachers.module import teacher_from_module
from unistep.teachers.teacher import Teacher
from unistep.types import Cond, bcast

SHAPE = (1, 8, 8)
SPREAD = 0.25


def pictures(process: NoiseProcess) -> GaussianMixture:
    """Four smooth pictures of 8x8 pixels, each in a cloud of noise."""
    axis = torch.linspace(-1, 1, 8, dtype=torch.float64)
    x, y = torch.meshgrid(axis, axis, indexing="ij")
    waves = torch.stack([x, y, (3 * x).sin(), (x + y).cos() - 0.5])
    return GaussianMixture(0.8 * waves[:, None], SPREAD, process)


class Foreign(nn.Module):
    """A network that predicts what it was trained to, exactly: mu of the mixture under its own process."""

    def __init__(self, process: NoiseProcess, kind: Prediction):
        super().__init__()
        self.mixture, self.kind = pictures(process), kind
        self.weight = nn.Parameter(torch.zeros(1))  # a network has weights

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond = None) -> Tensor:
        t = t.clamp_min(1e-3)  # where there is no noise, no kind but x0 says what x_0 is
        mu = self.mixture(x_t, t, cond)
        return from_x0(mu, x_t, t, self.kind, self.mixture.process)


def teacher_of(
    trained: NoiseProcess, kind: Prediction, said: NoiseProcess | None = None, as_kind: Prediction | None = None
) -> Teacher:
    """The network trained under one process and kind, loaded as said (by default rightly)."""
    network = Foreign(trained, kind)
    return teacher_from_module(network, said or trained, as_kind or kind, SHAPE, num_classes=4, source="foreign")


class Swapped:
    """A process that takes alpha for sigma."""

    def __init__(self, process: NoiseProcess):
        self.process = process

    def alpha(self, t: Tensor) -> Tensor:
        return self.process.sigma(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.process.alpha(t)

    def __getattr__(self, name: str):  # noqa: ANN204
        return getattr(self.process, name)


class Bare(nn.Module):
    """EDM's raw network F_x, which wants its input scaled by c_in: called with x_t itself."""

    def __init__(self, process: NoiseProcess, sigma_data: float):
        super().__init__()
        self.mixture, self.sigma_data = pictures(process), sigma_data
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, scaled: Tensor, t: Tensor) -> Tensor:
        total = bcast((self.mixture.process.sigma(t) ** 2 + self.sigma_data**2).sqrt(), scaled)
        x_t = scaled * total
        return from_x0(self.mixture(x_t, t), x_t, t, "F", self.mixture.process, self.sigma_data)
