"""Heun's method with optional churn: Algorithm 2 of Karras et al. 2022 (arXiv:2206.00364), for every process."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor

from unistep.diffusion.samplers.base import Level, Sampler, Trajectory, eps_from_x0
from unistep.diffusion.samplers.euler import euler_step
from unistep.errors import UserError


@dataclass(frozen=True)
class Heun(Sampler):
    """Second order, two evaluations per step and one for the last: 2 n - 1.

    Churn adds noise before a step and is defined where alpha = 1 (EDM); the defaults leave it out. Names as in the
    paper; its ImageNet setting is S_churn 40, S_min 0.05, S_max 50, S_noise 1.003.

    Attributes:
        S_churn: overall amount of added noise, 0 = deterministic.
        S_min, S_max: range of sigma in which noise is added.
        S_noise: standard deviation of the added noise.
    """

    name = "heun"

    S_churn: float = 0.0
    S_min: float = 0.0
    S_max: float = math.inf
    S_noise: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("S_churn", "S_min", "S_noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"sampler.{name}: found {getattr(self, name)}, expected a finite number, 0 or more")
        if not self.S_min <= self.S_max:
            raise UserError(f"sampler.S_max: found {self.S_max}, expected at least S_min, which is {self.S_min}")

    def nfe(self, evaluations_per_call: int = 1) -> int:
        """2 n - 1 calls: the last step ends at sigma = 0, where the correction is undefined."""
        return (2 * self.num_steps - 1) * evaluations_per_call

    def config(self) -> dict[str, Any]:
        return {key: value for key, value in super().config().items() if value != math.inf}  # JSON has no infinity

    def solve(self, run: Trajectory, x: Tensor) -> Tensor:
        for step, (t, s) in enumerate(pairwise(run.levels(self.num_steps))):
            x, t = self.churn(run, x, t, step)
            x = self.step(run, x, t, s)
        return x

    def step(self, run: Trajectory, x: Tensor, t: Level, s: Level) -> Tensor:
        """One Euler step to s, then the trapezoid of both ends (Algorithm 2, lines 7-11)."""
        x_0 = run.mu(x, t)
        x_s = euler_step(x, x_0, t, s)
        if s.sigma == 0:
            return x_s
        x_0_s = run.mu(x_s, s)
        eps = (eps_from_x0(x, x_0, t) + eps_from_x0(x_s, x_0_s, s)) / 2
        return x + (s.alpha - t.alpha) * (x_0 + x_0_s) / 2 + (s.sigma - t.sigma) * eps

    def churn(self, run: Trajectory, x: Tensor, t: Level, step: int) -> tuple[Tensor, Level]:
        """Raises the noise level by the factor 1 + gamma (Algorithm 2, lines 4-6).

        Raises:
            UserError: for a process with alpha other than 1.
        """
        if self.S_churn == 0 or not self.S_min <= t.sigma <= self.S_max:
            return x, t
        if t.alpha != 1:
            raise UserError(
                f"sampler.S_churn: found {self.S_churn}, expected 0: churn is defined for EDM processes only"
            )
        gamma = min(self.S_churn / self.num_steps, math.sqrt(2) - 1)
        t_hat = run.level(t.t * (1 + gamma))
        added = math.sqrt(t_hat.sigma**2 - t.sigma**2)
        return x + added * self.S_noise * run.noise(x, step), t_hat
