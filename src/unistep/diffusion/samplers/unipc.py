"""UniPC (Zhao et al. 2023, arXiv:2302.04867), the scheduler of diffusers on a process's own grid."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from unistep.diffusion.samplers.base import Level, Sampler, Trajectory
from unistep.errors import UserError


@dataclass(frozen=True)
class UniPC(Sampler):
    """Predictor and corrector of B_2(h), one evaluation per step; the extra `diffusers` has the arithmetic.

    Attributes:
        order: of the predictor, 1..3; lower in the first steps and the last.
    """

    name = "unipc"

    order: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.order <= 3:
            raise UserError(f"sampler.order: found {self.order}, expected 1, 2 or 3")

    def solve(self, run: Trajectory, x: Tensor) -> Tensor:
        levels = run.levels(self.num_steps)
        scheduler = scheduler_of(levels, self.order)
        for (t, s), timestep in zip(pairwise(levels), scheduler.timesteps, strict=True):
            x_vp = scheduler.step(run.mu(x, t), timestep, x / length(t)).prev_sample
            x = x_vp * length(s)
        return x


def length(at: Level) -> float:
    """sqrt(alpha^2 + sigma^2): x divided by it is x of the VP process at the same signal-to-noise ratio."""
    return math.hypot(at.alpha, at.sigma)


def scheduler_of(levels: list[Level], order: int) -> Any:
    """diffusers' scheduler at the signal-to-noise ratios of the levels, its network predicting x_0.

    Raises:
        UserError: without diffusers, or for a process without signal at the terminal time.
    """
    try:
        from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
    except ImportError as error:
        raise UserError(
            "sampler.name: found unipc, which needs diffusers; pip install 'unistep[diffusers]', or use dpmpp_2m"
        ) from error
    if levels[0].alpha == 0:
        raise UserError(
            "sampler.name: found unipc for a process without signal at the terminal time, expected one with alpha > 0; "
            "use dpmpp_2m"
        )
    scheduler = UniPCMultistepScheduler(solver_order=order, prediction_type="sample")
    scheduler.set_timesteps(len(levels) - 1)
    scheduler.timesteps = torch.arange(len(levels) - 1, 0, -1)  # names only: the levels are in `sigmas`
    scheduler.sigmas = torch.tensor([at.sigma / at.alpha for at in levels], dtype=torch.float64)
    scheduler.set_begin_index(0)
    return scheduler
