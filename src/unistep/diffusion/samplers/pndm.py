"""PNDM (Liu et al. 2022, arXiv:2202.09778) without Runge-Kutta steps, as Stable Diffusion is sampled with it (PLMS)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unistep.diffusion.samplers.base import Level, Sampler, Trajectory, eps_from_x0
from unistep.errors import UserError

WEIGHTS = {  # of the predicted noises, the newest first: Adams and Bashforth's
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


@dataclass(frozen=True)
class PNDM(Sampler):
    """DDIM's step with the noise extrapolated from up to four evaluations; the first step is tried and done again.

    The weights are those of a grid of equal steps, whatever the process's own grid is.
    """

    name = "pndm"

    def solve(self, run: Trajectory, x: Tensor) -> Tensor:
        first, second, *later = run.levels(self.num_steps)
        if first.alpha == 0:
            raise UserError(
                "sampler.name: found pndm for a process without signal at the terminal time, expected one with alpha > "
                "0; use dpmpp_2m"
            )
        noises = [predicted_noise(run, x, first)]
        end = transfer(x, noises[0], first, second)
        if second.sigma > 0:  # at data there is no noise left to ask for
            x, t = transfer(x, (noises[0] + predicted_noise(run, end, second)) / 2, first, second), second
            for s in later:
                noises = [predicted_noise(run, x, t), *noises[:3]]
                weights = torch.tensor(WEIGHTS[len(noises)], dtype=torch.float64)
                x, t = transfer(x, sum_of(weights, noises), t, s), s
            return x
        return end

    def nfe(self, evaluations_per_call: int = 1) -> int:
        """One more than there are steps, but for a single step."""
        return (self.num_steps + (self.num_steps > 1)) * evaluations_per_call


def predicted_noise(run: Trajectory, x: Tensor, at: Level) -> Tensor:
    """The noise that goes with the network's answer."""
    return eps_from_x0(x, run.mu(x, at), at)


def sum_of(weights: Tensor, noises: list[Tensor]) -> Tensor:
    """The weighted sum of noises."""
    return torch.stack([w * eps for w, eps in zip(weights, noises, strict=True)]).sum(0)


def transfer(x: Tensor, eps: Tensor, t: Level, s: Level) -> Tensor:
    """x_s from x_t and a noise (the paper's Eq. 11): DDIM's step."""
    return s.alpha * (x - t.sigma * eps) / t.alpha + s.sigma * eps
