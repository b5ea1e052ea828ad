"""DDIM (Song et al. 2020, arXiv:2010.02502), from deterministic (eta 0) to ancestral (eta 1)."""

import math
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from unistep.diffusion.samplers.base import Level, Sampler, Trajectory, eps_from_x0
from unistep.errors import UserError


@dataclass(frozen=True)
class DDIM(Sampler):
    """x_s = alpha_s x_0 + sqrt(sigma_s^2 - c^2) eps + c noise, Eq. 12 written for any alpha and sigma.

    Attributes:
        eta: share of the ancestral noise, 0..1.
    """

    name = "ddim"

    eta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise UserError(f"sampler.eta: found {self.eta}, expected a number from 0 to 1")

    def solve(self, run: Trajectory, x: Tensor) -> Tensor:
        for step, (t, s) in enumerate(pairwise(run.levels(self.num_steps))):
            x_0 = run.mu(x, t)
            c = self.eta * posterior_std(t, s)
            eps = eps_from_x0(x, x_0, t)
            x = s.alpha * x_0 + math.sqrt(s.sigma**2 - c**2) * eps
            if c > 0:
                x = x + c * run.noise(x, step)
        return x


def posterior_std(t: Level, s: Level) -> float:
    """Standard deviation of x_s given x_t and x_0, s less noisy than t (Eq. 16 for VP); 0 at data."""
    ratio = t.alpha / s.alpha  # s has signal, because it is less noisy than t
    return s.sigma / t.sigma * math.sqrt(max(t.sigma**2 - (ratio * s.sigma) ** 2, 0.0))
