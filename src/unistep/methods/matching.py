"""What the methods that compare two scores share: which noise levels they visit, and how the scores are read."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from unistep.guidance import GuidedDenoiser
from unistep.losses.denoising import denoising_loss
from unistep.methods.base import Random
from unistep.process.base import NoiseProcess
from unistep.process.noising import noised
from unistep.types import Cond


class Fractions(Protocol):
    """Settings that name a range of noise levels as fractions of the grid."""

    @property
    def min_fraction(self) -> float: ...

    @property
    def max_fraction(self) -> float: ...


def require_range(settings: Fractions) -> None:
    """Refuses an empty range of levels.

    Raises:
        ValueError: naming both ends.
    """
    if settings.min_fraction >= settings.max_fraction:
        raise ValueError(
            f"min_fraction: found {settings.min_fraction}, expected less than max_fraction {settings.max_fraction}"
        )


def levels(process: NoiseProcess, settings: Fractions) -> tuple[int, int]:
    """First and last level of distribution matching: 20 and 980 of 0..999 at the paper's 2 % and 98 %."""
    bins = process.num_bins
    return round(settings.min_fraction * bins), min(round(settings.max_fraction * bins), bins - 1)


def noise_uniformly(
    process: NoiseProcess,
    x: Tensor,
    rng: Random,
    low: int = 0,
    high: int | None = None,
    first_rows: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Draws t uniformly over the training grid's levels low..high (None = the last) and returns it with x_t (Eq. 3).

    Where x joins two streams of a batch, `first_rows` says how many rows are of the first. Each stream then has draws
    of its own: a row's place in its stream, unlike its place in x, does not depend on how the batch is split.
    """
    last, rows = process.num_bins - 1, len(x)
    streams = [rows] if first_rows is None or first_rows == rows else [first_rows, rows - first_rows]
    levels = torch.cat([rng.integers(n, low, last if high is None else high) for n in streams])
    eps = torch.cat([rng.normal(n, *x.shape[1:]) for n in streams]).to(x.device)
    t = process.time(levels / last).to(x.device)
    return t, noised(process, x, t, eps)


def evaluate_base(mu_base: Callable[..., Tensor], x_t: Tensor, t: Tensor, cond: Cond) -> tuple[Tensor, Tensor]:
    """The teacher's answer as the method uses it, guided perhaps, and the unguided one, in no further evaluation."""
    if isinstance(mu_base, GuidedDenoiser):
        return mu_base.with_unguided(x_t, t, cond)
    mu = mu_base(x_t, t, cond)
    return mu, mu


@torch.no_grad()
def compare_scores(
    weighting: Callable[[Tensor], Tensor], mu_base: Tensor, unguided: Tensor, mu_fake: Tensor, x: Tensor, t: Tensor
) -> dict[str, Tensor]:
    """Logs how far apart the two scores are, and how well each denoises the generator's samples.

    A fake score that is up to date denoises them at least as well as the teacher, which never saw them. Guidance makes
    the teacher denoise worse, so the `unguided` answer is the one that the fake score is compared with.
    """
    weight = weighting(t)
    return {
        "score_gap": (mu_fake - mu_base).abs().mean(),
        "fake_denoise": denoising_loss(mu_fake, x, weight).mean(),
        "teacher_denoise": denoising_loss(unguided, x, weight).mean(),
    }
