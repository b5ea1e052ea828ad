"""DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095, Algorithm 2): second order at one evaluation per step."""

import math
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from unistep.diffusion.samplers.base import Level, Sampler, Trajectory


@dataclass(frozen=True)
class DPMpp2M(Sampler):
    """Multistep in the half log-SNR lambda = ln(alpha/sigma), extrapolating x_0 from the last two evaluations.

    First order is taken where lambda is infinite: from alpha = 0, and into data (the final lower order).
    """

    name = "dpmpp_2m"

    def solve(self, run: Trajectory, x: Tensor) -> Tensor:
        h_last, x_0_last = math.inf, None
        for t, s in pairwise(run.levels(self.num_steps)):
            x_0 = run.mu(x, t)
            h = log_snr_gain(t, s)
            D = x_0
            if x_0_last is not None and math.isfinite(h) and math.isfinite(h_last):
                D = x_0 + h / (2 * h_last) * (x_0 - x_0_last)  # line 7, 1 / (2 r) with r = h_last / h
            # sigma_s/sigma_t x_t - alpha_s (e^-h - 1) D with e^-h = alpha_t sigma_s / (alpha_s sigma_t) multiplied out
            x = s.sigma / t.sigma * x + (s.alpha - t.alpha * s.sigma / t.sigma) * D
            h_last, x_0_last = h, x_0
        return x


def log_snr_gain(t: Level, s: Level) -> float:
    """h = lambda_s - lambda_t > 0; infinite from alpha_t = 0 or to sigma_s = 0."""
    if t.alpha == 0 or s.sigma == 0:
        return math.inf
    return math.log(s.alpha / t.alpha) + math.log(t.sigma / s.sigma)
