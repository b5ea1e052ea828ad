"""The variance-preserving process in continuous time (Song et al. 2021, arXiv:2011.13456, Eq. 33)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unistep.diffusion.process.noising import require_finite, require_steps
from unistep.errors import UserError


@dataclass(frozen=True)
class ContinuousVPProcess:
    """alpha = exp(-B/2), sigma^2 = 1 - alpha^2, B = beta_d t^2/2 + beta_min t, t in [0, 1].

    Attributes:
        beta_d, beta_min: the rate of noise is beta_d t + beta_min (19.9 and 0.1 as EDM names them).
        t_min: lowest noisy time of the grids; data is t = 0.
        num_bins: levels of the training grid.
    """

    beta_d: float = 19.9
    beta_min: float = 0.1
    t_min: float = 1e-3
    num_bins: int = 1000

    def __post_init__(self) -> None:
        require_finite("process", beta_d=self.beta_d, beta_min=self.beta_min, t_min=self.t_min)
        if self.beta_d < 0 or self.beta_min <= 0:
            raise UserError(
                f"process: found beta_d {self.beta_d} and beta_min {self.beta_min}, expected beta_d >= 0, beta_min > 0"
            )
        if not 0 < self.t_min < 1:
            raise UserError(f"process.t_min: found {self.t_min}, expected a time between 0 and 1")
        require_steps("process.num_bins", self.num_bins, minimum=2)

    def _exponent(self, t: Tensor) -> Tensor:
        return self.beta_d * t**2 / 2 + self.beta_min * t

    def alpha(self, t: Tensor) -> Tensor:
        return (-self._exponent(t) / 2).exp()

    def sigma(self, t: Tensor) -> Tensor:
        return (-(-self._exponent(t)).expm1()).sqrt()  # 1 - alpha^2 without cancellation

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -(self.beta_d * t + self.beta_min) / 2 * self.alpha(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        """-alpha alpha_dot / sigma; infinite at t = 0, where sigma grows like sqrt(beta_min t)."""
        return (self.beta_d * t + self.beta_min) / 2 * self.alpha(t) ** 2 / self.sigma(t)

    def time(self, u: Tensor) -> Tensor:
        """Linear from t_min to 1."""
        return (self.t_min + u.double() * (1 - self.t_min)).to(u.dtype)

    def sampling_times(self, num_steps: int) -> Tensor:
        """num_steps times from 1 down to t_min in equal steps, then 0 (EDM, Table 1, VP column)."""
        require_steps("num_steps", num_steps)
        times = self.time(torch.linspace(1, 0, num_steps, dtype=torch.float64))
        return torch.cat([times, times.new_zeros(1)])

    def terminal(self, z: Tensor) -> Tensor:
        """z itself: alpha(1) is 0.0066."""
        return z

    def config(self) -> dict[str, Any]:
        return {
            "type": "continuous_vp",
            "beta_d": self.beta_d,
            "beta_min": self.beta_min,
            "t_min": self.t_min,
            "num_bins": self.num_bins,
        }
