"""Noise levels of the methods that compare two scores, and the diagnostics that they log."""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from unistep.diffusion.process.base import NoiseProcess
from unistep.diffusion.process.noising import noised
from unistep.losses.denoising import denoising_loss
from unistep.methods.base import Random


class TimestepFractions(Protocol):
    """Settings that give a range of noise levels as fractions of the training grid."""

    @property
    def min_fraction(self) -> float: ...

    @property
    def max_fraction(self) -> float: ...


def require_range(settings: TimestepFractions) -> None:
    """Validates that the range of noise levels is not empty.

    Raises:
        ValueError: with both ends.
    """
    if settings.min_fraction >= settings.max_fraction:
        raise ValueError(
            f"min_fraction: found {settings.min_fraction}, expected less than max_fraction {settings.max_fraction}"
        )


def timestep_range(process: NoiseProcess, settings: TimestepFractions) -> tuple[int, int]:
    """First and last level of distribution matching: 20 and 980 of 0..999 at the paper's 2 % and 98 %."""
    bins = process.num_bins
    return round(settings.min_fraction * bins), min(round(settings.max_fraction * bins), bins - 1)


def sample_noised(
    process: NoiseProcess,
    x: Tensor,
    rng: Random,
    low: int = 0,
    high: int | None = None,
    first_rows: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Draws t uniformly over the training grid's levels low..high (None = the last) and returns t and x_t (Eq. 3).

    If x concatenates two streams of a batch, `first_rows` is the number of rows of the first. Each stream then has
    draws of its own: the position of a row in its stream does not depend on how the batch is split, unlike that in x.
    """
    last, rows = process.num_bins - 1, len(x)
    streams = [rows] if first_rows is None or first_rows == rows else [first_rows, rows - first_rows]
    levels = torch.cat([rng.integers(n, low, last if high is None else high) for n in streams])
    eps = torch.cat([rng.normal(n, *x.shape[1:]) for n in streams]).to(x.device)
    t = process.time(levels / last).to(x.device)
    return t, noised(process, x, t, eps)


@torch.no_grad()
def score_diagnostics(
    weighting: Callable[[Tensor], Tensor], mu_base: Tensor, unguided: Tensor, mu_fake: Tensor, x: Tensor, t: Tensor
) -> dict[str, Tensor]:
    """The mean distance of the two scores, and how well each denoises the generator's samples.

    A fake score that is up to date denoises them at least as well as the teacher, which was not trained on them.
    Guidance makes the teacher denoise worse, so the fake score is compared with the `unguided` prediction.
    """
    weight = weighting(t)
    return {
        "score_gap": (mu_fake - mu_base).abs().mean(),
        "fake_denoise": denoising_loss(mu_fake, x, weight).mean(),
        "teacher_denoise": denoising_loss(unguided, x, weight).mean(),
    }


def score_losses(logs: Mapping[str, float]) -> tuple[float | None, float | None]:
    """`Method.health_losses` of the methods that log `score_diagnostics`.

    A step without them, before distribution matching begins, has the fake score's own loss.
    """
    if "fake_denoise" in logs and "teacher_denoise" in logs:
        return logs["fake_denoise"], logs["teacher_denoise"]
    return logs.get("loss/denoise"), None
