"""The EDM process: alpha = 1, t = sigma, levels spaced as in Karras et al. 2022 (arXiv:2206.00364)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unistep.diffusion.process.noising import require_finite, require_steps
from unistep.errors import UserError


@dataclass(frozen=True)
class EDMProcess:
    """x_t = x_0 + t eps: variance exploding, and the noise level itself is the time.

    Attributes:
        sigma_min, sigma_max: lowest and highest level of the grids; data is t = 0.
        rho: curvature of the grids, 7 in EDM (Eq. 5): larger means more levels near sigma_min.
        num_bins: levels of the training grid.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    num_bins: int = 1000

    def __post_init__(self) -> None:
        require_finite("process", sigma_min=self.sigma_min, sigma_max=self.sigma_max, rho=self.rho)
        if not 0 < self.sigma_min < self.sigma_max:
            raise UserError(
                f"process: found sigma_min {self.sigma_min} and sigma_max {self.sigma_max}, "
                "expected 0 < sigma_min < sigma_max"
            )
        if self.rho <= 0:
            raise UserError(f"process.rho: found {self.rho}, expected a positive number (7 in EDM)")
        require_steps("process.num_bins", self.num_bins, minimum=2)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def alpha_dot(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def time(self, u: Tensor) -> Tensor:
        """Eq. 5 with the index turned round: u = 0 is sigma_min, u = 1 is sigma_max."""
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return ((low + u.double() * (high - low)) ** self.rho).clamp(self.sigma_min, self.sigma_max).to(u.dtype)

    def sampling_times(self, num_steps: int) -> Tensor:
        """num_steps levels from sigma_max down to sigma_min, then 0 (Eq. 5); one step goes from sigma_max to 0."""
        require_steps("num_steps", num_steps)
        levels = self.time(torch.linspace(1, 0, num_steps, dtype=torch.float64))
        return torch.cat([levels, levels.new_zeros(1)])

    def terminal(self, z: Tensor) -> Tensor:
        """sigma_max z; the data's own part of x_T is left out, as in EDM."""
        return self.sigma_max * z

    def config(self) -> dict[str, Any]:
        return {
            "type": "edm",
            "sigma_min": self.sigma_min,
            "sigma_max": self.sigma_max,
            "rho": self.rho,
            "num_bins": self.num_bins,
        }
