"""Rectified flow: straight lines between data and noise (Liu et al. 2022, arXiv:2209.03003), with a time shift."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unistep.diffusion.process.noising import require_finite, require_steps
from unistep.errors import UserError


@dataclass(frozen=True)
class FlowProcess:
    """x_t = (1 - t) x_0 + t eps, t in [0, 1], t = 0 is data: many papers count the other way round.

    Attributes:
        shift: moves both grids towards noise, t = s u / (1 + (s - 1) u) (Stable Diffusion 3, arXiv:2403.03206, Eq. 23);
            1 = none. It changes which times are visited, not alpha and sigma.
        num_bins: levels of the training grid, i/num_bins for i = 1..num_bins before the shift.
    """

    shift: float = 1.0
    num_bins: int = 1000

    def __post_init__(self) -> None:
        require_finite("process", shift=self.shift)
        if self.shift <= 0:
            raise UserError(f"process.shift: found {self.shift}, expected a positive number, 1 for none")
        require_steps("process.num_bins", self.num_bins, minimum=2)

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def shifted(self, u: Tensor) -> Tensor:
        """The shift of a uniform time; 0 and 1 stay where they are."""
        return self.shift * u / (1 + (self.shift - 1) * u)

    def time(self, u: Tensor) -> Tensor:
        """Level u = 0 is 1/num_bins before the shift, not data: the weight of Eq. 6 is infinite there."""
        return self.shifted((1 + u.double() * (self.num_bins - 1)) / self.num_bins).to(u.dtype)

    def sampling_times(self, num_steps: int) -> Tensor:
        """1 down to 0 in equal steps before the shift."""
        require_steps("num_steps", num_steps)
        return self.shifted(torch.linspace(1, 0, num_steps + 1, dtype=torch.float64))

    def terminal(self, z: Tensor) -> Tensor:
        """z itself, exactly: alpha(1) = 0."""
        return z

    def config(self) -> dict[str, Any]:
        return {"type": "flow", "shift": self.shift, "num_bins": self.num_bins}
