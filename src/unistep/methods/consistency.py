"""Consistency distillation and training (arXiv:2303.01469), with the schedule of ECT as an option.

One network f maps every x_t of a trajectory to its data, f(x_t, t) = f(x_s, s). At data itself f is the identity, the
boundary condition: EDM's preconditioning has c_skip = 1 and c_out = 0 there (for every process with alpha = 1 at data),
and the loss takes x_s itself where s is data, whatever the network. (The paper's boundary is at a small epsilon instead
of 0; ECT, arXiv:2406.14548, has it at 0 too.) So a grid of N levels ends with 0 where the paper's ends with
epsilon: on EDM's process, whose lowest noisy level is that epsilon, the paper's grid of N levels is one of N + 1 here.
"""

import math
from collections.abc import Set
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import torch
from pydantic import Field, model_validator
from torch import Tensor

from unistep.diffusion.process.base import NoiseProcess
from unistep.diffusion.process.noising import noised
from unistep.diffusion.samplers.batched_steps import heun_rows
from unistep.methods.base import Batch, LossOutput, Method, Phase, Random, Stream
from unistep.methods.config import (
    ComparesImages,
    LearnsFromImages,
    MultiStepConfig,
    clean_images,
    refuse_unused,
    require_edm,
)
from unistep.methods.ema_update import ema_update_
from unistep.methods.inputs import MethodInputs
from unistep.types import Cond, upload


class Consistency(Method):
    """Minimizes E[ w d(f(x_t, t), sg f(x_s, s)) ]: f gives the same answer at two points of one trajectory.

    Args:
        inputs: teacher, networks and distance.
        config: settings of either method.

    Raises:
        ValueError: without a distance.
    """

    ema_network = "generator"

    def __init__(self, inputs: MethodInputs, config: "ConsistencyDistillationConfig | ConsistencyTrainingConfig"):
        self.config, self.process, self.distance = config, inputs.teacher.process, inputs.distance
        self.schedule = config.build_schedule(inputs)
        steps = config.steps(self.process)
        self.generator = self.target = inputs.build_generator(steps)
        self.networks = {"generator": self.generator}
        if self.schedule.decay(0) > 0:
            self.target = inputs.build_generator(steps).requires_grad_(False)
            self.auxiliary_networks = {"target": self.target}

    def phases(self, step: int) -> tuple[Phase, ...]:
        loss, inputs = partial(self.consistency_loss, step), self.config.image_inputs
        return (Phase(name="consistency", trains=("generator",), inputs=inputs, loss=loss),)

    def after_step(self, step: int) -> None:
        """theta^- <- mu theta^- + (1 - mu) theta."""
        if self.target is not self.generator:
            ema_update_(self.target, self.generator, self.schedule.decay(step))

    def consistency_loss(self, step: int, batch: Batch, rng: Random) -> LossOutput:
        """w d(f(x_t, t), f(x_s, s)) of each row, [b]."""
        x, cond = clean_images(batch)
        points = self.schedule.points(x, cond, rng, step)
        target = self.evaluate_target(points, cond)
        loss = points.weight * self.distance(self.generator(points.x_t, cond, points.t), target)
        return LossOutput(terms={"consistency": loss}, weights={"consistency": 1.0})

    @torch.no_grad()
    def evaluate_target(self, points: "Points", cond: Cond) -> Tensor:
        """f(x_s, s) of the target network; x_s itself where s is data, the boundary condition."""
        noisy = self.process.sigma(points.s) > 0
        f = self.target(points.x_s, cond, torch.where(noisy, points.s, points.t))
        return torch.where(noisy.reshape(-1, *[1] * (f.ndim - 1)), f, points.x_s)


@dataclass(frozen=True)
class Points:
    """Two points of one trajectory, x_t and the less noisy x_s, and each row's weight: what f must agree on."""

    t: Tensor
    x_t: Tensor
    s: Tensor
    x_s: Tensor
    weight: Tensor


class Schedule(Protocol):
    """How points are drawn at a step, and the decay of the average that targets are made with (0 = no average)."""

    def points(self, x: Tensor, cond: Cond, rng: Random, step: int) -> Points: ...

    def decay(self, step: int) -> float: ...


def neighbours(process: NoiseProcess, levels: int, x: Tensor, rng: Random) -> tuple[Tensor, Tensor]:
    """t and the next lower s on a grid of `levels` levels, the lowest of which is data; uniform, [b] each."""
    grid = upload(process.sampling_times(levels - 1).float(), x.device)
    n = rng.integers(len(x), 0, levels - 2).to(x.device)
    return grid[n], grid[n + 1]


class Distillation:
    """x_s is one Heun step of the teacher's ODE away from x_t (Algorithm 2)."""

    def __init__(self, inputs: MethodInputs, config: "ConsistencyDistillationConfig"):
        self.mu_base, self.process, self.config = inputs.mu_base, inputs.teacher.process, config

    @torch.no_grad()
    def points(self, x: Tensor, cond: Cond, rng: Random, step: int) -> Points:
        t, s = neighbours(self.process, self.config.levels, x, rng)
        x_t = noised(self.process, x, t, rng.normal(*x.shape).to(x.device))
        x_s = heun_rows(self.mu_base, self.process, x_t, t, s, cond)
        return Points(t, x_t, s, x_s, torch.ones_like(t))

    def decay(self, step: int) -> float:
        return self.config.target_decay


class SongTraining:
    """x_s is noised by the same noise as x_t, on a grid that grows finer (Algorithm 3)."""

    def __init__(self, inputs: MethodInputs, config: "ConsistencyTrainingConfig"):
        self.process, self.config, self.steps = inputs.teacher.process, config, inputs.steps

    def points(self, x: Tensor, cond: Cond, rng: Random, step: int) -> Points:
        N = self.config.levels_at(min(step, self.steps - 1), self.steps)
        t, s = neighbours(self.process, N + 1, x, rng)  # and data
        eps = rng.normal(*x.shape).to(x.device)
        return Points(t, noised(self.process, x, t, eps), s, noised(self.process, x, s, eps), torch.ones_like(t))

    def decay(self, step: int) -> float:
        return self.config.decay_at(min(step, self.steps - 1), self.steps)


class EasyTuning:
    """x_s is noised by the same noise as x_t, at a ratio r / t that grows towards 1 (arXiv:2406.14548).

    Raises:
        UserError: for a process whose time is not sigma.
    """

    def __init__(self, inputs: MethodInputs, config: "ConsistencyTrainingConfig"):
        self.process, self.config, self.steps = inputs.teacher.process, config, inputs.steps
        require_edm(self.process, "method.schedule: found ect", "use schedule song")

    def points(self, x: Tensor, cond: Cond, rng: Random, step: int) -> Points:
        config, ends = self.config, self.process.time(torch.tensor([0.0, 1.0])).tolist()
        t = (config.P_mean + config.P_std * rng.normal(len(x)).to(x.device)).exp().clamp(*ends)
        r = config.nearer(t, min(step, self.steps - 1), self.steps)
        eps = rng.normal(*x.shape).to(x.device)
        return Points(t, noised(self.process, x, t, eps), r, noised(self.process, x, r, eps), 1 / (t - r))

    def decay(self, step: int) -> float:
        return 0.0


class ConsistencyDistillationConfig(ComparesImages, LearnsFromImages, MultiStepConfig):
    """Settings of consistency distillation; the defaults are the paper's for CIFAR-10 (Table 3), its N = 18.

    `levels` counts data as one. `target_decay` is mu, the decay of the average that targets are made with; at 0
    they are made with the network itself. With `num_steps` more than 1 the generator samples as in Algorithm 1.
    """

    name: Literal["consistency_distillation"]
    from_terminal = True
    levels: int = Field(default=19, ge=2, le=10_000)
    target_decay: float = Field(default=0.0, ge=0, lt=1)

    def build_schedule(self, inputs: MethodInputs) -> Schedule:
        """How points are drawn."""
        return Distillation(inputs, self)

    def build(self, inputs: MethodInputs) -> Consistency:
        return Consistency(inputs, self)


OF_SCHEDULE = {
    "song": ("first_levels", "last_levels", "target_decay"),
    "ect": ("q", "k", "b", "stages", "P_mean", "P_std"),
}


class ConsistencyTrainingConfig(ComparesImages, MultiStepConfig):
    """Settings of consistency training, on real images alone; the defaults are the paper's for CIFAR-10.

    `schedule: song`: N grows from `first_levels` (s_0) to `last_levels` + 1 (s_1 + 1), mu with it from `target_decay`
    (mu_0). N counts the noisy levels, as the paper does; data is one more.
    `schedule: ect`: from a teacher's weights; r = t (1 - n(t) / q^a) with n(t) = 1 + k sigmoid(-b t) and a growing by
    one in each of `stages` equal parts, ln t ~ N(P_mean, P_std^2), weight 1 / (t - r), no average.
    """

    name: Literal["consistency_training"]
    from_terminal = follows_length = True
    schedule: Literal["song", "ect"] = "song"
    first_levels: int = Field(default=2, ge=2, le=10_000)
    last_levels: int = Field(default=150, ge=2, le=10_000)
    target_decay: float = Field(default=0.9, ge=0, lt=1)
    q: float = Field(default=2.0, gt=1)
    k: float = Field(default=8.0, ge=0)
    b: float = Field(default=1.0, gt=0)
    stages: int = Field(default=8, ge=1, le=1000)
    P_mean: float = -1.1
    P_std: float = Field(default=2.0, gt=0)

    @property
    def needs_data(self) -> bool:
        return True

    @model_validator(mode="after")
    def check(self) -> "ConsistencyTrainingConfig":
        """The grid does not become coarser, and nothing is set that belongs to the other schedule."""
        refuse_unused(self, OF_SCHEDULE["ect" if self.schedule == "song" else "song"], f"schedule is {self.schedule}")
        if self.last_levels < self.first_levels:
            raise ValueError(
                f"last_levels: found {self.last_levels}, expected at least first_levels, {self.first_levels}"
            )
        return self

    @property
    def image_inputs(self) -> Set[Stream]:
        """Real images."""
        return {"images"}

    def build_schedule(self, inputs: MethodInputs) -> Schedule:
        """How points are drawn."""
        return SongTraining(inputs, self) if self.schedule == "song" else EasyTuning(inputs, self)

    def build(self, inputs: MethodInputs) -> Consistency:
        return Consistency(inputs, self)

    def levels_at(self, step: int, steps: int) -> int:
        """N(k) of step k of K: ceil(sqrt(k / K ((s_1 + 1)^2 - s_0^2) + s_0^2) - 1) + 1 (appendix C)."""
        s_0, s_1 = self.first_levels, self.last_levels
        return math.ceil(math.sqrt(step / steps * ((s_1 + 1) ** 2 - s_0**2) + s_0**2) - 1) + 1

    def decay_at(self, step: int, steps: int) -> float:
        """mu(k) = exp(s_0 ln mu_0 / N(k)), the paper's formula (its authors' code has N(k) - 1 in it); 0 stays 0."""
        return self.target_decay ** (self.first_levels / self.levels_at(step, steps))

    def nearer(self, t: Tensor, step: int, steps: int) -> Tensor:
        """ECT's r for each t: half of it away at q = 2 in the first stage, then closer and closer; never below 0."""
        a = 1 + step * self.stages // steps
        n = 1 + self.k * torch.sigmoid(-self.b * t)
        return (t * (1 - n / self.q**a)).clamp_min(0)
