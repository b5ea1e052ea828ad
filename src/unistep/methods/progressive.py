"""Progressive distillation (arXiv:2202.00512): a student does two of its teacher's steps in one, again and again."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from unistep.diffusion.process.base import NoiseProcess
from unistep.diffusion.process.noising import data_time, noised
from unistep.diffusion.samplers.base import DenoiserFn
from unistep.diffusion.samplers.batched_steps import euler_rows
from unistep.methods.base import Batch, LossOutput, Method, Phase, Random
from unistep.methods.config import LearnsFromImages, clean_images, grid_times
from unistep.methods.ema_update import ema_update_
from unistep.methods.inputs import MethodInputs
from unistep.networks.generator import StepSchedule
from unistep.types import Cond, bcast


class Progressive(Method):
    """In round r the student learns N = start_steps / 2^(r+1) steps; its teacher is the student of round r - 1.

    The first teacher is mu_base. A student of N steps is at the places i/N of the training grid, i = N..1, and ends at
    data; its teacher stops half-way too. Between them both move as DDIM does.

    Args:
        inputs: teacher, networks, length of the training.
        config: settings.

    Raises:
        UserError: for a training grid too coarse for `start_steps`.
    """

    ema_network = "generator"

    def __init__(self, inputs: MethodInputs, config: "ProgressiveConfig"):
        self.config, self.process, self.mu_base = config, inputs.teacher.process, inputs.mu_base
        grid_times(self.process, tuple(i / config.start_steps for i in range(config.start_steps - 1, 0, -1)))
        self.beginnings = config.beginnings(inputs.steps)
        final = tuple(i / config.final_steps for i in range(config.final_steps - 1, 0, -1))
        steps = StepSchedule(grid_times(self.process, final), "ode")
        self.generator = inputs.build_generator(steps)
        self.previous = inputs.build_generator(steps).requires_grad_(False)
        self.networks, self.auxiliary_networks = {"generator": self.generator}, {"previous": self.previous}

    def phases(self, step: int) -> tuple[Phase, ...]:
        inputs = self.config.image_inputs
        return (Phase(name="halving", trains=("generator",), inputs=inputs, loss=partial(self.halving_loss, step)),)

    def milestones(self) -> Mapping[str, tuple[int, ...]]:
        """The beginnings of the rounds after the first."""
        return {"generator": self.beginnings[1:-1]}

    def after_step(self, step: int) -> None:
        """Between two rounds the student becomes the teacher."""
        if step + 1 in self.beginnings[1:-1]:
            ema_update_(self.previous, self.generator)

    def halving_loss(self, step: int, batch: Batch, rng: Random) -> LossOutput:
        """max(1, SNR) |mu(x_t, t) - x~|^2 (section 4, "truncated SNR"; Algorithm 2)."""
        x, cond = clean_images(batch)
        t, half, s = self.sample_step(x, rng, step)
        x_t = noised(self.process, x, t, rng.normal(*x.shape).to(x.device))
        target = ddim_target(self.teacher(step), self.process, x_t, (t, half, s), cond)
        snr = (self.process.alpha(t) / self.process.sigma(t)).square()
        error = (self.generator(x_t, cond, t) - target).float().square().flatten(1).mean(1)
        return LossOutput(terms={"halving": snr.clamp_min(1) * error}, weights={"halving": 1.0})

    def round(self, step: int) -> int:
        """The round that a step belongs to, from 0."""
        return sum(step >= begin for begin in self.beginnings[1:-1])

    def teacher(self, step: int) -> DenoiserFn:
        """mu_base in the first round, then the previous student."""
        return self.mu_base if self.round(step) == 0 else lambda x, t, cond: self.previous(x, cond, t)

    def sample_step(self, x: Tensor, rng: Random, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draws a step of the student for each row: its first time, its midpoint, its last time; [b] each."""
        N = self.config.start_steps // 2 ** (self.round(step) + 1)
        i = rng.integers(len(x), 1, N).to(x.device)
        t, half, s = (self.process.time(place / N) for place in (i, i - 0.5, i - 1))
        return t, half, torch.where(i > 1, s, torch.full_like(s, data_time(self.process)))


@torch.no_grad()
def ddim_target(
    teacher: DenoiserFn, process: NoiseProcess, x_t: Tensor, times: tuple[Tensor, Tensor, Tensor], cond: Cond
) -> Tensor:
    """x~, the answer at t that takes DDIM from x_t to where the teacher comes by two steps (appendix G).

    x~ = (x_s - r x_t) / (alpha_s - r alpha_t) with r = sigma_s / sigma_t; at data it is x_s itself. In float64: both
    differences are small where steps are. Only the teacher gets x_t's own type.

    Args:
        teacher: mu(x_t, t, cond).
        process: its noise process.
        x_t: noised samples [b, *dims].
        times: t, the half-way stop and s, [b] each, decreasing.
        cond: condition of each row.
    """
    (t, half, s), x = (time.double() for time in times), x_t.double()
    x_half = euler_rows(process, x, teacher(x_t, times[0], cond).double(), t, half)
    x_s = euler_rows(process, x_half, teacher(x_half.to(x_t.dtype), times[1], cond).double(), half, s)
    r = process.sigma(s) / process.sigma(t)
    return ((x_s - bcast(r, x) * x) / bcast(process.alpha(s) - r * process.alpha(t), x)).to(x_t.dtype)


class ProgressiveConfig(LearnsFromImages):
    """Settings of progressive distillation.

    The teacher takes `start_steps`, the last student `final_steps`; each round halves, all within one training. Rounds
    are of equal length, but for the last `long_rounds`, which are twice as long.
    """

    name: Literal["progressive"]
    from_terminal = follows_length = True
    start_steps: int = Field(default=32, ge=2, le=10_000)
    final_steps: int = Field(default=1, ge=1, le=10_000)
    long_rounds: int = Field(default=0, ge=0, le=1000)

    @model_validator(mode="after")
    def check(self) -> "ProgressiveConfig":
        """Validates that the steps are halved a whole number of times."""
        if self.start_steps <= self.final_steps or self.final_steps * 2**self.rounds != self.start_steps:
            raise ValueError(
                f"start_steps: found {self.start_steps}, expected final_steps {self.final_steps} times 2, 4, 8, ..."
            )
        if self.long_rounds > self.rounds:
            raise ValueError(f"long_rounds: found {self.long_rounds}, expected at most {self.rounds}, the rounds")
        return self

    @property
    def rounds(self) -> int:
        """Number of halvings."""
        return round(math.log2(self.start_steps / self.final_steps))

    def check_length(self, steps: int) -> None:
        needed = self.rounds + self.long_rounds
        if steps < needed:
            raise ValueError(f"start_steps: found {self.rounds} rounds in {steps} steps, expected at least {needed}")

    def beginnings(self, steps: int) -> tuple[int, ...]:
        """The step at which each round begins, and the end."""
        lengths = [1] * (self.rounds - self.long_rounds) + [2] * self.long_rounds
        return tuple(steps * sum(lengths[:r]) // sum(lengths) for r in range(self.rounds + 1))

    def build(self, inputs: MethodInputs) -> Progressive:
        return Progressive(inputs, self)
