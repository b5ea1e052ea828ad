"""The generator: a denoiser asked once, or a few times at fixed noise levels, seen as a map G(z, cond) -> x."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unistep.diffusion.process.base import NoiseProcess
from unistep.diffusion.process.noising import noised
from unistep.diffusion.samplers.batched_steps import euler_rows
from unistep.diffusion.samplers.seeds import seeded_normal
from unistep.errors import UserError
from unistep.types import Cond, bcast


@dataclass(frozen=True)
class StepSchedule:
    """The times of a generator's evaluations after the first one, and the transition from one to the next.

    Attributes:
        later_times: times after the first, decreasing, in the process's own unit; none for a one-step generator.
        transition: `noise`: x_s = alpha_s x_0 + sigma_s (fresh noise), as consistency models and DMD2 sample
            (arXiv:2303.01469, Algorithm 1); `ode`: the noise that goes with x_t, deterministic DDIM.
    """

    later_times: tuple[float, ...] = ()
    transition: Literal["noise", "ode"] = "noise"

    @property
    def count(self) -> int:
        """Network evaluations per sample."""
        return 1 + len(self.later_times)


ONE_STEP = StepSchedule()


class Generator(nn.Module):
    """G(z) = mu(x_T, T) with x_T the terminal noise made from z; z ~ N(0, I) is never pre-scaled by the caller.

    At initialisation this is the teacher asked to denoise pure noise (DMD, section 3.1). `t_init` starts it at a
    lower level instead, x = sigma(t_init) z at time t_init, where the teacher's answer is already an image
    (SiD, arXiv:2404.04057, uses sigma 2.5).

    Args:
        denoiser: (x_t, t, cond) -> x_0; its parameters are the generator's.
        process: the denoiser's noise process.
        t_init: time of the first evaluation, in the process's own unit; None = the terminal time.
        steps: the evaluations after the first.
    """

    def __init__(
        self, denoiser: nn.Module, process: NoiseProcess, t_init: float | None = None, steps: StepSchedule = ONE_STEP
    ):
        super().__init__()
        self.denoiser, self.process, self.t_init, self.steps = denoiser, process, t_init, steps

    def forward(self, x: Tensor, cond: Cond = None, t: Tensor | None = None) -> Tensor:
        """One evaluation: of unit noise z at the first level, or of x_t at the times t [b] where they are given.

        The answer is in the teacher's space and is not clamped: pixels lie about in [-1, 1]. The teacher's codec clamps
        and rounds them, as `unistep.sample` and every evaluation do.
        """
        x, t = self.start(x) if t is None else (x, t)
        return self.denoiser(x, t, cond)

    def start(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x_t [b, *dims] and t [b] of the first evaluation."""
        return first_level(self.process, self.t_init, z)

    def sample(self, z: Tensor, cond: Cond = None, seeds: Tensor | None = None) -> Tensor:
        """All steps, [b, *dims]; seeds [b] int64 are needed where fresh noise comes between them.

        Raises:
            UserError: for missing seeds.
        """
        return self.sample_with_noise(z, cond, lambda step: fresh_noise(seeds, z, step))

    def sample_with_noise(self, z: Tensor, cond: Cond, noise: Callable[[int], Tensor]) -> Tensor:
        """All steps, [b, *dims]; fresh unit noise between them, where there is any, is `noise(0)`, `noise(1)`, ..."""
        x_0, (x, t) = self(z, cond), self.start(z)
        for step, level in enumerate(self.steps.later_times):
            s = torch.full_like(t, level)
            if self.steps.transition == "ode":
                x = euler_rows(self.process, x, x_0, t, s)
            else:
                x = noised(self.process, x_0, s, noise(step))
            x_0, t = self(x, cond, s), s
        return x_0

    def config(self) -> dict[str, Any]:
        """What a folder says of a generator beside its network: `t_init`, and `steps` where there are several."""
        several = {"later": list(self.steps.later_times), "between": self.steps.transition}
        return {"t_init": self.t_init, **({"steps": several} if self.steps.later_times else {})}


def first_level(process: NoiseProcess, t_init: float | None, z: Tensor) -> tuple[Tensor, Tensor]:
    """Unit noise as x_t [b, *dims] at time t [b]: the terminal noise, or sigma(t_init) z."""
    if t_init is None:
        return process.terminal(z), process.time(torch.ones(len(z), device=z.device))
    t = torch.full((len(z),), t_init, device=z.device)
    return bcast(process.sigma(t), z) * z, t


def fresh_noise(seeds: Tensor | None, z: Tensor, step: int) -> Tensor:
    """Unit noise between two steps, like z, a pure function of each sample's seed.

    Raises:
        UserError: if no seeds were given.
    """
    if seeds is None:
        raise UserError("seeds: found none, expected one per sample: this generator adds noise between its steps")
    return seeded_normal(seeds, tuple(z.shape[1:]), stream=step + 1).to(z)
