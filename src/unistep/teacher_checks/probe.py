"""What a certificate looks at: the teacher's own samples, noised, and its answers at levels over the whole range."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from unistep.diffusion.process.base import NoiseProcess
from unistep.diffusion.samplers import DPMpp2M, seeded_normal
from unistep.teacher_checks.even_grid import EvenGrid
from unistep.teachers.teacher import Teacher
from unistep.types import Cond, bcast, index_condition, to_device

LEVELS = (0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.98)  # places on the training grid
FIRST_SEED = 30_000_000  # far from the seeds of pairs, evaluation and previews
NUM_STEPS = 24
STEP = 0.02  # of finite differences, in units of sigma


@dataclass(frozen=True, kw_only=True)
class Level:
    """n samples noised to one level, and what the teacher makes of them.

    Attributes:
        u, alpha, sigma: the level.
        t: its time, float32 [n].
        eps: the noise, [n, *dims].
        x_t: alpha x_0 + sigma eps.
        mu: the teacher's answer, in the samples' own conditions.
    """

    u: float
    alpha: float
    sigma: float
    t: Tensor
    eps: Tensor
    x_t: Tensor
    mu: Tensor

    @property
    def eps_hat(self) -> Tensor:
        """The noise that the teacher sees, (x_t - alpha mu) / sigma."""
        return (self.x_t - self.alpha * self.mu) / self.sigma

    @property
    def place(self) -> str:
        """The level in words."""
        return f"at u = {self.u:g} (alpha {self.alpha:.3g}, sigma {self.sigma:.3g})"


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A teacher, its own samples x_0 [n, *dims] with their conditions, and the levels."""

    teacher: Teacher
    x_0: Tensor
    cond: Cond
    levels: tuple[Level, ...]
    batch: int

    def ask(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """mu(x_t, t, cond), a few rows at a time."""
        return in_batches(
            lambda rows: self.teacher(x_t[rows], t[rows], index_condition(cond, rows)), len(x_t), self.batch
        )

    def errors(self) -> list[Tensor]:
        """Mean squared error of each sample, float64 [n], at each level."""
        return [(level.mu - self.x_0).double().square().flatten(1).mean(1) for level in self.levels]

    def variance(self) -> float:
        """Mean squared deviation of the samples from their mean sample."""
        return float((self.x_0 - self.x_0.mean(0)).square().mean())

    def directional(self, level: Level) -> tuple[Tensor, Tensor]:
        """Random signs v [n, *dims] and the derivative of mu along them, by central differences."""
        draws = torch.Generator().manual_seed(FIRST_SEED + round(1000 * level.u))
        v = torch.randint(0, 2, level.x_t.shape, generator=draws).to(level.x_t) * 2 - 1
        h = STEP * level.sigma
        above, below = (self.ask(level.x_t + sign * h * v, level.t, self.cond) for sign in (1, -1))
        return v, (above - below) / (2 * h)


def in_batches(ask: Callable[[slice], Tensor], count: int, batch: int) -> Tensor:
    """What `ask` says of rows 0..count-1, asked `batch` rows at a time."""
    return torch.cat([ask(slice(start, start + batch)) for start in range(0, count, batch)])


def sample_count(shape: tuple[int, ...]) -> int:
    """Enough samples for some 12,000 coordinates, but at least 16."""
    return min(max(12_000 // math.prod(shape), 16), 2048)


def probe(teacher: Teacher, device: torch.device) -> Probe:
    """Samples the teacher from fixed seeds and asks it at every level: a pure function of the teacher."""
    count = sample_count(teacher.shape)
    seeds, batch = torch.arange(FIRST_SEED, FIRST_SEED + count), max(16, count // 4)
    z = seeded_normal(seeds, teacher.shape).to(device)
    cond = to_device(teacher.conditioner.from_seeds(seeds), device) if teacher.conditioner is not None else None
    solver, process = DPMpp2M(NUM_STEPS), cast(NoiseProcess, EvenGrid(teacher.process))

    def solve(rows: slice) -> Tensor:
        return solver(teacher, process, z[rows], index_condition(cond, rows)).x

    x_0 = in_batches(solve, len(z), batch)
    bare = Probe(teacher=teacher, x_0=x_0, cond=cond, levels=(), batch=batch)
    if not x_0.isfinite().all():
        return bare
    levels = tuple(noised(bare, u, seeds, i) for i, u in enumerate(LEVELS))
    return Probe(teacher=teacher, x_0=x_0, cond=cond, levels=levels, batch=batch)


def noised(bare: Probe, u: float, seeds: Tensor, index: int) -> Level:
    """One level of a probe; each has noise of its own."""
    x_0, process = bare.x_0, bare.teacher.process
    t = process.time(torch.full((len(x_0),), u, dtype=torch.float64)).to(x_0)
    alpha, sigma = process.alpha(t), process.sigma(t)
    eps = seeded_normal(seeds + (index + 1) * len(seeds), bare.teacher.shape).to(x_0)
    x_t = bcast(alpha, x_0) * x_0 + bcast(sigma, x_0) * eps
    mu = bare.ask(x_t, t, bare.cond)
    return Level(u=u, alpha=float(alpha[0]), sigma=float(sigma[0]), t=t, eps=eps, x_t=x_t, mu=mu)
