"""Checks of a teacher's outside: the noise process, shapes, rows that do not depend on each other, conversions."""

from itertools import pairwise, product
from typing import get_args

import torch
from torch import Tensor

from unistep.diffusion.prediction import Prediction, convert
from unistep.diffusion.samplers import seeded_normal
from unistep.errors import UserError
from unistep.teacher_checks.certificate import Check, nan_as_infinity
from unistep.teacher_checks.probe import FIRST_SEED, LEVELS, Probe
from unistep.teachers.teacher import Teacher
from unistep.types import index_condition, to_device

ROUND_TRIP = 1e-3
ALONE = {torch.float32: 1e-2, torch.float16: 1e-2, torch.bfloat16: 5e-2}  # by the type of the network


def noise_process(teacher: Teacher) -> Check:
    """Along the training grid the signal fades into noise: from nearly data to nearly noise."""
    process = teacher.process
    t = process.time(torch.linspace(0, 1, 65, dtype=torch.float64))
    alpha, sigma = process.alpha(t), process.sigma(t)
    ratio = sigma / alpha.clamp_min(1e-12)
    name = "noise process"
    if not (alpha.isfinite().all() and sigma.isfinite().all() and (alpha >= 0).all() and (sigma >= 0).all()):
        return Check(name=name, passed=False, words="found alpha or sigma that are negative or not finite")
    if not all(b > a for a, b in pairwise(ratio.tolist())):
        words = (
            f"found sigma/alpha from {ratio[0]:.3g} at the data's end to {ratio[-1]:.3g} at the noise's, expected it "
            "to rise throughout; alpha and sigma are swapped, or time runs backwards (t = 0 is data)"
        )
        return Check(name=name, passed=False, words=words)
    passed = bool(ratio[0] < 0.5 and ratio[-1] > 2)
    words = f"sigma/alpha rises from {ratio[0]:.3g} to {ratio[-1]:.3g}"
    if not passed:
        words = f"found {words}, expected from less than 0.5 to more than 2: is this the schedule it was trained with?"
    return Check(name=name, passed=passed, words=words, figure=float(ratio[-1]))


@torch.no_grad()
def shapes_and_rows(teacher: Teacher, device: torch.device) -> Check:
    """One row, and three: the output has the input's shape, is finite and the same again, each row for itself.

    A network in half precision rounds otherwise in a batch of another size, and where x_0 comes of its answer by a
    division by alpha that grows: there the difference is counted relative to x_t / alpha, if that is larger.
    """
    name, seeds = "shapes and rows", torch.arange(FIRST_SEED, FIRST_SEED + 3)
    x = seeded_normal(seeds, teacher.shape).to(device)
    cond = to_device(teacher.conditioner.from_seeds(seeds), device) if teacher.conditioner is not None else None
    worst, dtype = 0.0, getattr(teacher.denoiser, "dtype", torch.float32)
    for u in LEVELS:
        t = teacher.process.time(torch.full((3,), u, dtype=torch.float64)).to(x)
        x_t = x * (teacher.process.alpha(t) ** 2 + teacher.process.sigma(t) ** 2).sqrt().reshape(
            -1, *[1] * (x.ndim - 1)
        )
        together, alone = teacher(x_t, t, cond), teacher(x_t[:1], t[:1], index_condition(cond, slice(0, 1)))
        if together.shape != x_t.shape or alone.shape != x_t[:1].shape:
            words = f"found output {tuple(together.shape)}, expected the input's {tuple(x_t.shape)}"
            return Check(name=name, passed=False, words=words)
        if not together.isfinite().all():
            return Check(name=name, passed=False, words=f"found outputs at u = {u:g} that are not finite")
        size = together[:1].norm()
        if dtype != torch.float32:
            size = torch.maximum(size, x_t[:1].norm() / teacher.process.alpha(t[:1]).clamp_min(1e-12))
        worst = max(worst, relative(alone, together[:1], float(size)), key=nan_as_infinity)
    limit = ALONE.get(dtype, ALONE[torch.float32])
    passed = worst <= limit
    words = f"a row alone and among others differ by {worst:.2g} of their size"
    if not passed:
        words += "; rows depend on each other or on chance: is dropout on, or batch normalisation in training mode?"
    return Check(name=name, passed=passed, words=words, figure=worst, limit=f"at most {limit:g}")


def conversions(seen: Probe) -> Check:
    """x_0, eps, v, velocity and score there and back at every level, where they are defined."""
    worst, process, count = 0.0, seen.teacher.process, 0
    for level, (there, back) in product(seen.levels, product(get_args(Prediction), repeat=2)):
        try:
            once = convert(level.mu.double(), level.x_t, level.t, "x0", there, process)
            other = convert(once, level.x_t, level.t, there, back, process)
            again = convert(other, level.x_t, level.t, back, "x0", process)
        except UserError:  # singular there, and said so
            continue
        worst, count = max(worst, relative(again, level.mu.double()), key=nan_as_infinity), count + 1
    passed = worst <= ROUND_TRIP and count > 0
    words = f"{count} round trips through x_0, eps, v, velocity, score and F, off by at most {worst:.2g}"
    if not passed:
        words += "; alpha_dot and sigma_dot do not belong to alpha and sigma"
    return Check(name="conversions", passed=passed, words=words, figure=worst, limit=f"at most {ROUND_TRIP:g}")


def relative(found: Tensor, expected: Tensor, size: float | None = None) -> float:
    """|found - expected| / size, by default |expected|; 0 for two zeros."""
    size = float(expected.norm()) if size is None else size
    return float((found - expected).norm()) / size if size > 0 else float(found.norm())
