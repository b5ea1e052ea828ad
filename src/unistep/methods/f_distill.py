"""f-distill (arXiv:2502.15681): DMD2 weighted for another f-divergence by its discriminator."""

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import model_validator
from torch import Tensor

from unistep.diffusion.process.base import NoiseProcess
from unistep.losses.f_divergence import Divergence, density_ratio, divergence_weight
from unistep.methods.dmd2 import DMD2Config, GradientWeight
from unistep.methods.inputs import MethodInputs

BINS = 10  # of t, as in the authors' code
DECAY = 0.95  # of the running means per step; ours


class DensityRatioWeight(GradientWeight):
    """h(p_real / p_fake) of each row, with the density ratio r divided by its running mean in ten bins of t.

    Bins are tenths of the training grid. A mean starts at 1, the ratio of an untrained discriminator, and moves once a
    step towards the mean of all rows of that step, on all ranks and micro-batches; a bin without rows keeps its mean.

    Args:
        process: its training grid.
        divergence: gives h.
        sum_over_ranks: returns the sum of a tensor over all ranks.
    """

    mean: Tensor
    edges: Tensor
    sums: Tensor
    counts: Tensor

    def __init__(self, process: NoiseProcess, divergence: Divergence, sum_over_ranks: Callable[[Tensor], Tensor]):
        super().__init__()
        self.divergence: Divergence = divergence
        self.sum_over_ranks = sum_over_ranks
        self.register_buffer("mean", torch.ones(BINS))
        self.register_buffer("edges", process.time(torch.arange(1, BINS) / BINS).float(), persistent=False)
        for name in ("sums", "counts"):  # of the current step
            self.register_buffer(name, torch.zeros(BINS), persistent=False)

    @torch.no_grad()
    def forward(self, logits: Tensor, t: Tensor) -> Tensor:
        """h(r) of each row over its mean on all ranks, [b]."""
        h = divergence_weight(self.normalize(density_ratio(logits), t), self.divergence)
        total, rows = self.sum_over_ranks(torch.stack([h.sum(), torch.ones_like(h).sum()]))
        return h / (total / rows)

    @torch.no_grad()
    def normalize(self, r: Tensor, t: Tensor) -> Tensor:
        """r [b] divided by the running mean of its bin; adds r to the sums of the step."""
        bins = torch.bucketize(t.float(), self.edges)
        self.sums.index_add_(0, bins, r)
        self.counts.index_add_(0, bins, torch.ones_like(r))
        return r / self.mean[bins]

    @torch.no_grad()
    def update(self) -> None:
        """Moves the running means."""
        sums, counts = self.sum_over_ranks(torch.stack([self.sums, self.counts])).unbind()
        now = torch.where(counts > 0, sums / counts.clamp_min(1), self.mean)
        self.mean.lerp_(now, 1 - DECAY)
        self.sums.zero_()
        self.counts.zero_()


class FDistillConfig(DMD2Config):
    """Settings of f-distill: those of DMD2 and the divergence; there is always a discriminator."""

    name: Literal["f_distill"]  # pyright: ignore[reportIncompatibleVariableOverride]
    divergence: Divergence = "js"

    @model_validator(mode="after")
    def check_discriminator(self) -> "FDistillConfig":
        """Validates that there is a discriminator."""
        if self.lambda_gan == 0:
            raise ValueError("lambda_gan: found 0, expected a positive number: the discriminator gives the weighting")
        return self

    def build_gradient_weight(self, inputs: MethodInputs) -> GradientWeight:
        return DensityRatioWeight(inputs.teacher.process, self.divergence, inputs.sum_over_ranks)
