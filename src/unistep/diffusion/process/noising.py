"""Noising, the even grid of times and tables of alpha and sigma, for every process."""

import math

import torch
from torch import Tensor

from unistep.diffusion.process.base import NoiseProcess
from unistep.errors import UserError
from unistep.types import bcast


def require_steps(field: str, found: int, minimum: int = 1, maximum: int | None = None) -> None:
    """Refuses a number of steps or levels outside minimum..maximum.

    Raises:
        UserError: naming the field, the number found and the numbers allowed.
    """
    if found < minimum or (maximum is not None and found > maximum):
        upper = "" if maximum is None else f" and at most {maximum}"
        raise UserError(f"{field}: found {found}, expected a whole number, at least {minimum}{upper}")


def require_finite(section: str, **values: float) -> None:
    """Refuses infinity and NaN, which pass many a comparison.

    Raises:
        UserError: naming the first value.
    """
    for name, found in values.items():
        if not math.isfinite(found):
            raise UserError(f"{section}.{name}: found {found}, expected a finite number")


def noised(process: NoiseProcess, x: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """x_t = alpha_t x + sigma_t eps (DMD, arXiv:2311.18828v4, Eq. 3).

    Args:
        process: the noise process.
        x: clean samples [b, *dims].
        t: times [b].
        eps: noise [b, *dims].
    """
    return bcast(process.alpha(t), x) * x + bcast(process.sigma(t), x) * eps


def data_time(process: NoiseProcess) -> float:
    """The time without noise: 0, or -1 for a table of timesteps."""
    return float(process.sampling_times(1)[-1])


def linear(num_steps: int, beta_start: float, beta_end: float) -> Tensor:
    """prod(1 - beta) with beta linear in t (DDPM, arXiv:2006.11239, section 4)."""
    return (1 - torch.linspace(beta_start, beta_end, num_steps, dtype=torch.float64)).cumprod(0)


def scaled_linear(num_steps: int, beta_start: float, beta_end: float) -> Tensor:
    """prod(1 - beta) with sqrt(beta) linear in t (latent diffusion, arXiv:2112.10752)."""
    root = torch.linspace(math.sqrt(beta_start), math.sqrt(beta_end), num_steps, dtype=torch.float64)
    return (1 - root**2).cumprod(0)


def cosine(num_steps: int, offset: float, beta_max: float) -> Tensor:
    """f(t)/f(0) with f(t) = cos^2((t/T + s)/(1 + s) pi/2), each beta at most beta_max (arXiv:2102.09672, Eq. 17)."""
    share = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
    f = ((share + offset) / (1 + offset) * math.pi / 2).cos() ** 2
    betas = (1 - f[1:] / f[:-1]).clamp(max=beta_max)
    return (1 - betas).cumprod(0)


def zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """sqrt(alpha-bar) shifted to end at 0 and scaled to keep its first value (arXiv:2305.08891, Algorithm 1)."""
    root = alphas_cumprod.sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
