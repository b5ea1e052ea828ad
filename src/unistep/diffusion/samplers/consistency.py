"""Multistep consistency sampling (Song et al. 2023, arXiv:2303.01469, Algorithm 1), for any few-step generator."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from unistep.diffusion.samplers.base import Level, Sampler, Trajectory
from unistep.errors import UserError


@dataclass(frozen=True)
class Consistency(Sampler):
    """x_0 = mu(x_t); x_s = alpha_s x_0 + sigma_s (fresh noise): every step jumps to data and back to a lower level.

    One step is one evaluation at the terminal time, the one-step generator. More steps need seeds.

    Attributes:
        times: the levels to visit after the terminal one, decreasing, in the process's own unit; None = equally spaced
            on the training grid.
    """

    name = "consistency"

    times: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.times is None:
            return
        object.__setattr__(self, "times", tuple(float(t) for t in self.times))
        wanted = self.num_steps - 1
        if len(self.times) != wanted or list(self.times) != sorted(set(self.times), reverse=True):
            raise UserError(
                f"sampler.times: found {list(self.times)}, expected num_steps - 1 = {wanted} decreasing times"
            )

    def config(self) -> dict[str, Any]:
        return super().config() | {"times": None if self.times is None else list(self.times)}

    def levels(self, run: Trajectory) -> list[Level]:
        """num_steps levels, the first is the terminal one.

        Raises:
            UserError: for times of one's own that are not between data and the terminal time.
        """
        u = 1 - torch.arange(self.num_steps, dtype=torch.float64) / self.num_steps
        times = run.process.time(u).tolist()
        later: Sequence[float] = times[1:] if self.times is None else self.times
        data = float(run.process.sampling_times(1)[-1])
        if self.times is not None and not all(data < t < times[0] for t in self.times):
            raise UserError(
                f"sampler.times: found {list(self.times)}, expected times above {data:g} (data) and below "
                f"{times[0]:g} (the terminal time)"
            )
        return [run.level(t) for t in chain(times[:1], later)]

    def solve(self, run: Trajectory, x: Tensor) -> Tensor:
        levels = self.levels(run)
        x_0 = run.mu(x, levels[0])
        for step, s in enumerate(levels[1:]):
            x = s.alpha * x_0 + s.sigma * run.noise(x, step)
            x_0 = run.mu(x, s)
        return x_0
