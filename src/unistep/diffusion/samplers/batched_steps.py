"""One step of the probability-flow ODE for rows that are at different times, as training needs it."""

import torch
from torch import Tensor

from unistep.diffusion.process.base import NoiseProcess
from unistep.diffusion.samplers.base import DenoiserFn
from unistep.types import Cond, bcast


def eps_rows(process: NoiseProcess, x: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
    """The noise that goes with clean samples, eps = (x_t - alpha_t x_0) / sigma_t, [b, *dims]; sigma_t > 0."""
    return (x - bcast(process.alpha(t), x) * x_0) / bcast(process.sigma(t), x)


def euler_rows(process: NoiseProcess, x: Tensor, x_0: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """x_s = alpha_s x_0 + sigma_s eps with x_0 and eps as they are at t: Euler, deterministic DDIM for VP.

    Args:
        process: the noise process.
        x: x_t [b, *dims].
        x_0: the denoiser's answer to it [b, *dims].
        t, s: where each row is and where it goes [b]; sigma_t > 0.
    """
    return bcast(process.alpha(s), x) * x_0 + bcast(process.sigma(s), x) * eps_rows(process, x, x_0, t)


def heun_rows(denoiser: DenoiserFn, process: NoiseProcess, x: Tensor, t: Tensor, s: Tensor, cond: Cond) -> Tensor:
    """One step of Heun's method from t to s (arXiv:2206.00364, Algorithm 2), Euler's where s is data.

    Args:
        denoiser: mu(x_t, t, cond), asked twice.
        process: its noise process.
        x: x_t [b, *dims].
        t, s: where each row is and where it goes [b].
        cond: condition of each row.
    """
    x_0 = denoiser(x, t, cond)
    eps, euler = eps_rows(process, x, x_0, t), euler_rows(process, x, x_0, t, s)
    noisy = process.sigma(s) > 0
    at = torch.where(noisy, s, t)  # no denoiser need know the answer at sigma = 0
    x_0_s = denoiser(euler, at, cond)
    eps_s = eps_rows(process, euler, x_0_s, at)
    d_alpha, d_sigma = process.alpha(s) - process.alpha(t), process.sigma(s) - process.sigma(t)
    heun = x + bcast(d_alpha, x) * (x_0 + x_0_s) / 2 + bcast(d_sigma, x) * (eps + eps_s) / 2
    return torch.where(noisy.reshape(-1, *[1] * (x.ndim - 1)), heun, euler)
