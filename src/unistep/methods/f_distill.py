"""f-distill (arXiv:2502.15681): DMD2 with the weighting of another f-divergence, from its discriminator."""

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn

from unistep.losses.f_divergence import Divergence, density_ratio, divergence_weight
from unistep.methods.dmd2 import DMD2, MatchingConfig
from unistep.methods.ingredients import Ingredients
from unistep.process.base import NoiseProcess
from unistep.types import Cond

BINS = 10  # of t, as its authors have
DECAY = 0.95  # of the running means per step; ours

# ----------------------------------------------------------------------------------------------------- configuration


class FDistillConfig(MatchingConfig):
    """Settings of f-distill: those of DMD2 and the divergence; the discriminator is always there."""

    name: Literal["f_distill"]
    divergence: Divergence = "js"

    @model_validator(mode="after")
    def check_discriminator(self) -> "FDistillConfig":
        """The weighting is the discriminator's."""
        if self.lambda_gan == 0:
            raise ValueError("lambda_gan: found 0, expected a positive number: the discriminator gives the weighting")
        return self

    def build(self, made_of: Ingredients) -> "FDistill":
        return FDistill(made_of, self)


# -------------------------------------------------------------------------------------------------------- the method


class RatioMeans(nn.Module):
    """The running mean of r in ten bins of t, which follows the training and is saved with it.

    Bins are tenths of the training grid. A mean starts at 1, as a discriminator without an opinion has it, and moves
    once a step towards the mean of all rows of that step, on all ranks and micro-batches; a bin without rows stays.

    Args:
        process: its grid.
        sum_over_ranks: of a tensor.
    """

    mean: Tensor
    edges: Tensor
    sums: Tensor
    counts: Tensor

    def __init__(self, process: NoiseProcess, sum_over_ranks: Callable[[Tensor], Tensor]):
        super().__init__()
        self.sum_over_ranks = sum_over_ranks
        self.register_buffer("mean", torch.ones(BINS))
        self.register_buffer("edges", process.time(torch.arange(1, BINS) / BINS).float(), persistent=False)
        for name in ("sums", "counts"):  # of the step at hand
            self.register_buffer(name, torch.zeros(BINS), persistent=False)

    @torch.no_grad()
    def divide(self, r: Tensor, t: Tensor) -> Tensor:
        """r [b] over the running mean of its bin; takes note of r for the next step's means."""
        bins = torch.bucketize(t.float(), self.edges)
        self.sums.index_add_(0, bins, r)
        self.counts.index_add_(0, bins, torch.ones_like(r))
        return r / self.mean[bins]

    @torch.no_grad()
    def update(self) -> None:
        """Moves the means at the end of a step; every rank must call it."""
        sums, counts = self.sum_over_ranks(torch.stack([self.sums, self.counts])).unbind()
        now = torch.where(counts > 0, sums / counts.clamp_min(1), self.mean)
        self.mean.lerp_(now, 1 - DECAY)
        self.sums.zero_()
        self.counts.zero_()


class FDistill(DMD2):
    """DMD2 whose gradient at x_t is multiplied by h(p_real / p_fake).

    Args:
        made_of: teacher, networks, guidance.
        config: settings.
    """

    def __init__(self, made_of: Ingredients, config: FDistillConfig):
        super().__init__(made_of, config)
        self.divergence: Divergence = config.divergence
        self.sum_over_ranks = made_of.sum_over_ranks
        self.means = RatioMeans(self.process, made_of.sum_over_ranks).to(next(self.generator.parameters()).device)
        self.carried = {"ratio_means": self.means}

    def after_step(self, step: int) -> None:
        """The means of r follow."""
        self.means.update()

    # ------------------------------------------------------------------------------------------------------- pieces

    def evaluate_fake(self, x_t: Tensor, t: Tensor, cond: Cond) -> tuple[Tensor, Tensor]:
        """mu_fake and each row's h(r) over its mean on all ranks, from one pass of the fake score."""
        mu_fake, logits = self.fake_score(x_t, t, cond, judged=True)
        h = divergence_weight(self.means.divide(density_ratio(logits), t), self.divergence)
        total, rows = self.sum_over_ranks(torch.stack([h.sum(), torch.ones_like(h).sum()]))
        return mu_fake, h / (total / rows)
