"""Gaussian mixtures as teachers: exact mu(x_t, t), score, density and samples, for every noise process."""

import math
from collections.abc import Callable, Mapping
from typing import Self

import torch
from torch import Tensor, nn

from unistep.diffusion.process import EDMProcess, NoiseProcess
from unistep.diffusion.samplers.seeds import DATA, seeded_normal, seeded_uniform
from unistep.diffusion.weighting import training_weighting
from unistep.errors import UserError
from unistep.teachers.codecs import PixelCodec, PointCodec
from unistep.teachers.conditioners import LabelConditioner
from unistep.teachers.module import identity
from unistep.teachers.teacher import Teacher
from unistep.types import Cond


class GaussianMixture(nn.Module):
    """p(x_0) = sum_k w_k N(m_k, s_k^2 I). Noised, component k is N(alpha m_k, (alpha^2 s_k^2 + sigma^2) I).

    Nothing is divided by alpha, so the answers are exact at alpha = 0 too. All is computed in float64. A condition
    names a component: cond [b] = k keeps component k only, -1 or None keeps all.

    Args:
        means: [k, *dims].
        std: standard deviation of each component, a number or [k], > 0.
        process: the noise process whose times `forward` is asked about.
        weights: [k], made to sum to 1; None = equal.
    """

    means: Tensor
    std: Tensor
    log_weights: Tensor

    def __init__(self, means: Tensor, std: Tensor | float, process: NoiseProcess, weights: Tensor | None = None):
        super().__init__()
        self.process = process
        std = torch.as_tensor(std, dtype=torch.float64).expand(len(means)).clone()
        weights = torch.ones(len(means)) if weights is None else weights
        if not bool((std > 0).all()) or not bool((weights > 0).all()) or len(weights) != len(means):
            raise UserError("mixture: found another std or weight, expected one positive number per component")
        self.register_buffer("means", means.double().clone())
        self.register_buffer("std", std)
        self.register_buffer("log_weights", (weights.double() / weights.double().sum()).log())

    @classmethod
    def ring(cls, process: NoiseProcess, modes: int = 8, radius: float = 1.0, std: float = 0.06) -> Self:
        """Equal modes on a circle."""
        angle = torch.arange(modes, dtype=torch.float64) * (2 * math.pi / modes)
        return cls(radius * torch.stack([angle.cos(), angle.sin()], dim=1), std, process)

    @classmethod
    def grid(cls, process: NoiseProcess, side: int = 5, spacing: float = 0.5, std: float = 0.05) -> Self:
        """Equal modes on a square grid about the origin; the defaults have a standard deviation of 0.71 per axis."""
        axis = spacing * (torch.arange(side, dtype=torch.float64) - (side - 1) / 2)
        return cls(torch.cartesian_prod(axis, axis), std, process)

    @property
    def dims(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.means.shape[1:])

    @property
    def sigma_data(self) -> float:
        """Root mean variance per coordinate, what EDM calls sigma_data."""
        weights = self.log_weights.exp()
        means = self.means.flatten(1)
        spread = (weights @ (means - weights @ means) ** 2).mean()
        return float((spread + weights @ self.std**2).sqrt())

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond = None) -> Tensor:
        """mu(x_t, t) = E[x_0 | x_t], [b, *dims] in x_t's dtype."""
        alpha, difference, variance, log_joint = self._parts(x_t, t, cond)
        # E[x_0 | x_t, k] = m_k + alpha s_k^2 / v_k (x_t - alpha m_k)
        gain = alpha[:, None] * self.std**2 / variance
        posterior = self.means.flatten(1) + gain[..., None] * difference
        mu = (log_joint.softmax(1)[..., None] * posterior).sum(1)
        return mu.reshape(x_t.shape).to(x_t.dtype)

    def score(self, x_t: Tensor, t: Tensor, cond: Cond = None) -> Tensor:
        """The gradient of `log_density` by x_t, [b, *dims] in x_t's dtype; finite at sigma = 0 too."""
        _, difference, variance, log_joint = self._parts(x_t, t, cond)
        score = -((log_joint.softmax(1) / variance)[..., None] * difference).sum(1)
        return score.reshape(x_t.shape).to(x_t.dtype)

    def log_density(self, x_t: Tensor, t: Tensor, cond: Cond = None) -> Tensor:
        """log p_t(x_t) of the noised mixture, normalised, float64 [b]."""
        return self._parts(x_t, t, cond)[-1].logsumexp(1)

    def sample(self, seeds: Tensor, cond: Cond = None) -> Tensor:
        """Exact draws from p(x_0), float32 [b, *dims] on the CPU: a pure function of each seed (and condition)."""
        edges = self.log_weights.cpu().exp().cumsum(0)
        component = torch.searchsorted(edges, seeded_uniform(seeds, DATA), right=True).clamp(max=len(edges) - 1)
        labels = _labels(cond)
        if labels is not None:
            component = torch.where(labels.cpu() >= 0, labels.cpu(), component)
        noise = seeded_normal(seeds, self.dims, DATA + 1).double().flatten(1)
        x = self.means.cpu().flatten(1)[component] + self.std.cpu()[component, None] * noise
        return x.reshape(-1, *self.dims).float()

    def _parts(self, x_t: Tensor, t: Tensor, cond: Cond) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """alpha [b], x_t - alpha m_k [b, k, d], its variance [b, k] and log w_k N(x_t; k) [b, k]."""
        t = t.double()
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        difference = x_t.double().flatten(1)[:, None] - alpha[:, None, None] * self.means.flatten(1)
        variance = (alpha[:, None] * self.std) ** 2 + sigma[:, None] ** 2
        size = difference.shape[-1]
        log_normal = -0.5 * (difference.square().sum(-1) / variance + size * (2 * math.pi * variance).log())
        return alpha, difference, variance, self._log_prior(cond) + log_normal

    def _log_prior(self, cond: Cond) -> Tensor:
        """log p(k | cond), [1, k] or [b, k]: a named component has all the mass."""
        labels = _labels(cond)
        if labels is None:
            return self.log_weights[None]
        named = torch.arange(len(self.std), device=labels.device) == labels[:, None]
        one_hot = torch.where(named, 0.0, -math.inf).to(self.log_weights)
        return torch.where(labels[:, None] >= 0, one_hot, self.log_weights)


def _labels(cond: Cond) -> Tensor | None:
    if cond is None or isinstance(cond, Tensor):
        return cond
    raise UserError(f"mixture: found a condition of {', '.join(cond)}, expected component indices")


MIXTURES: Mapping[str, Callable[[NoiseProcess], GaussianMixture]] = {
    "ring8": GaussianMixture.ring,
    "grid25": GaussianMixture.grid,
}


def mixture_teacher(name: str, process: NoiseProcess | None = None, conditional: bool = False) -> Teacher:
    """A built-in mixture as a teacher.

    Args:
        name: ring8 or grid25.
        process: its noise process; None = EDM with sigma from 0.02 to 10.
        conditional: whether the component is the class.

    Raises:
        UserError: for an unknown name.
    """
    if name not in MIXTURES:
        raise UserError(f"gaussians: found {name!r}, expected one of {', '.join(MIXTURES)}")
    mixture = MIXTURES[name](process or EDMProcess(sigma_min=0.02, sigma_max=10.0))
    return teacher_from_mixture(mixture, source=f"gaussians:{name}", conditional=conditional)


def teacher_from_mixture(mixture: GaussianMixture, source: str, conditional: bool = False) -> Teacher:
    """Any mixture as a teacher; its hash covers the mixture and the process."""
    return Teacher(
        denoiser=mixture,
        process=mixture.process,
        weighting=training_weighting("F", mixture.process, mixture.sigma_data),  # of the network fitted to it
        shape=mixture.dims,
        codec=PointCodec() if len(mixture.dims) == 1 else PixelCodec(),
        conditioner=LabelConditioner(len(mixture.std)) if conditional else None,
        source=source,
        sha256=identity(mixture, {"process": mixture.process.config(), "conditional": conditional}),
    )
