"""Euler's method on the probability-flow ODE."""

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from unistep.diffusion.samplers.base import Level, Sampler, Trajectory, eps_from_x0


def euler_step(x: Tensor, x_0: Tensor, t: Level, s: Level) -> Tensor:
    """From t to s along dx = x_0 d alpha + eps d sigma with x_0 and eps held at their values at t.

    This form of the ODE needs no derivatives and no division by alpha, so it holds for every process: for EDM it is
    Euler in sigma, for rectified flow Euler in t, and for VP deterministic DDIM.
    """
    return x + (s.alpha - t.alpha) * x_0 + (s.sigma - t.sigma) * eps_from_x0(x, x_0, t)


@dataclass(frozen=True)
class Euler(Sampler):
    """First order, one evaluation per step."""

    name = "euler"

    def solve(self, run: Trajectory, x: Tensor) -> Tensor:
        for t, s in pairwise(run.levels(self.num_steps)):
            x = euler_step(x, run.mu(x, t), t, s)
        return x
