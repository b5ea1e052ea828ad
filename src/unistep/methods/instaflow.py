"""InstaFlow: paths made straight by reflow, then distilled into one step (arXiv:2209.03003, arXiv:2309.06380).

Reflow is written for any process: a pair is the start x_T of the teacher's ODE and its end x, so x_t = alpha_t x +
sigma_t eps with the one eps that has alpha_T x + sigma_T eps = x_T runs through both. A denoiser that answers x
everywhere on that path makes it the path of its own ODE. For rectified flow (alpha = 1 - t, sigma = t) eps is z itself
and the loss is |v - (z - x)|^2.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from unistep.diffusion.process.noising import noised
from unistep.diffusion.samplers.batched_steps import eps_rows
from unistep.diffusion.samplers.euler import Euler
from unistep.losses.denoising import denoising_loss
from unistep.methods.base import Batch, LossOutput, Method, Phase, Random
from unistep.methods.config import ComparesImages, Distance, grid_times
from unistep.methods.ema_update import ema_update_
from unistep.methods.inputs import MethodInputs
from unistep.networks.generator import StepSchedule, first_level
from unistep.types import Cond


class InstaFlow(Method):
    """Trains a flow on its own straight paths, stage after stage, and then distills it into one step.

    Args:
        inputs: teacher, networks, distance, length of the training.
        config: settings.
    """

    ema_network = "generator"

    def __init__(self, inputs: MethodInputs, config: "InstaFlowConfig"):
        self.teacher, self.config, self.regression = inputs.teacher, config, inputs.regression
        self.process, self.beginnings = inputs.teacher.process, config.beginnings(inputs.steps)
        fractions = tuple(i / config.num_steps for i in range(config.num_steps - 1, 0, -1))
        steps = StepSchedule(grid_times(self.process, fractions), "ode")
        self.generator = inputs.build_generator(steps)
        self.networks = {"generator": self.generator}
        if self.beginnings:
            self.flow = inputs.build_generator(steps).requires_grad_(False)
            self.auxiliary_networks = {"flow": self.flow}

    def phases(self, step: int) -> tuple[Phase, ...]:
        """Reflow on the pairs, reflow on the flow's own pairs, or distillation of them."""
        stage, trains = sum(step >= begin for begin in self.beginnings), ("generator",)
        if stage == 0:
            return (Phase(name="reflow", trains=trains, inputs={"pairs"}, loss=self.reflow_loss),)
        if stage < self.config.reflows:
            return (Phase(name="reflow.own", trains=trains, loss=self.own_reflow_loss),)
        return (Phase(name="distillation", trains=trains, loss=self.distillation_loss),)

    def milestones(self) -> Mapping[str, tuple[int, ...]]:
        """The beginnings of the stages after the first."""
        return {"generator": self.beginnings}

    def after_step(self, step: int) -> None:
        """Copies the generator between two stages: the copy solves the pairs of the next one."""
        if step + 1 in self.beginnings:
            ema_update_(self.flow, self.generator)

    # -------------------------------------------------------------------------------------------------------- losses

    def reflow_loss(self, batch: Batch, rng: Random) -> LossOutput:
        """The reflow loss on the teacher's pairs."""
        return self.straighten(*batch.pairs(), rng)

    def own_reflow_loss(self, batch: Batch, rng: Random) -> LossOutput:
        """The reflow loss on pairs of the previous stage's flow."""
        return self.straighten(*self.own_pairs(batch, rng), rng)

    def straighten(self, z: Tensor, x: Tensor, cond: Cond, rng: Random) -> LossOutput:
        """w_t |mu(x_t, t) - x|^2 on the line from x_T to x, t uniform over the grid."""
        last = self.process.num_bins - 1
        t = self.process.time(rng.integers(len(x), 0, last) / last).to(x.device)
        mu = self.generator(noised(self.process, x, t, self.eps(z, x)), cond, t)
        return LossOutput(terms={"reflow": denoising_loss(mu, x, self.teacher.weighting(t))}, weights={"reflow": 1.0})

    def distillation_loss(self, batch: Batch, rng: Random) -> LossOutput:
        """d(G(z), x) on pairs of the last stage's flow."""
        if self.regression is None:
            raise ValueError("instaflow: found no distance, expected one")
        z, x, cond = self.own_pairs(batch, rng)
        y = self.generator(z, cond)
        return LossOutput(terms={"distil": self.regression(y, x)}, weights={"distil": 1.0}, samples=y.detach())

    def eps(self, z: Tensor, x: Tensor) -> Tensor:
        """The noise whose line leads from x to the start of the ODE, (x_T - alpha_T x) / sigma_T."""
        x_T, T = first_level(self.process, None, z)
        return eps_rows(self.process, x_T, x, T)

    @torch.no_grad()
    def own_pairs(self, batch: Batch, rng: Random) -> tuple[Tensor, Tensor, Cond]:
        """z, the solution of the previous stage's flow from z, and the condition."""
        z = rng.normal(batch.size, *self.teacher.shape)
        solver = Euler(self.config.solver_steps)
        return z, solver(lambda x, t, cond: self.flow(x, cond, t), self.process, z, batch.cond).x, batch.cond


class InstaFlowConfig(ComparesImages):
    """Settings of reflow and distillation.

    `reflows` stages of equal length make the 2-, 3-, ... rectified flow; the first learns from the pairs, the later
    ones and the distillation from pairs that the flow of the stage before makes in `solver_steps` steps of Euler.
    `distil_from_step` begins the distillation; null = never, then the flow is sampled in `num_steps` steps of Euler.
    """

    name: Literal["instaflow"]
    from_terminal = follows_length = True
    milestones = ("distil_from_step",)
    reflows: int = Field(default=1, ge=1, le=100)
    distil_from_step: int | None = Field(default=None, ge=1, le=10**9)
    solver_steps: int = Field(default=8, ge=1, le=10_000)
    num_steps: int = Field(default=1, ge=1, le=10_000)

    @property
    def needs_pairs(self) -> bool:
        return True

    @property
    def distance(self) -> Distance | None:
        return None if self.distil_from_step is None else super().distance

    @model_validator(mode="after")
    def check(self) -> "InstaFlowConfig":
        """Validates that a distilled generator has one step."""
        if self.distil_from_step is not None and self.num_steps > 1:
            raise ValueError(f"num_steps: found {self.num_steps}, expected 1: distil_from_step distils into one step")
        return self

    def check_length(self, steps: int) -> None:
        if self.distil_from_step is not None and self.distil_from_step >= steps:
            raise ValueError(
                f"distil_from_step: found {self.distil_from_step}, expected less than training.steps {steps}"
            )
        if (self.distil_from_step or steps) < self.reflows:
            raise ValueError(f"reflows: found {self.reflows}, expected at most one per step")

    def beginnings(self, steps: int) -> tuple[int, ...]:
        """The step at which each stage after the first begins, the distillation included."""
        end = self.distil_from_step or steps
        later = tuple(end * r // self.reflows for r in range(1, self.reflows))
        return later if self.distil_from_step is None else (*later, end)

    def build(self, inputs: MethodInputs) -> InstaFlow:
        return InstaFlow(inputs, self)
