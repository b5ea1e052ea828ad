"""Published tables of alpha-bar for discrete variance-preserving processes, float64 [T]."""

import math

import torch
from torch import Tensor


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
