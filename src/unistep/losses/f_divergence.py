"""The weighting of f-distill (arXiv:2502.15681): other divergences than the reverse KL on the same score difference.

The gradient of D_f(p_real || p_fake) is that of the reverse KL times h(r) with r = p_real / p_fake at x_t, which a
discriminator knows: r = exp(logit). Its authors normalize twice, r by its mean at that noise level and h by its mean
over the batch; without the first h mixes "how real" with "how noisy", for at high noise r is about 1 for all samples.
"""

from typing import Literal

import torch
from torch import Tensor

Divergence = Literal["reverse_kl", "kl", "js", "hellinger", "jeffreys"]
LOWEST, HIGHEST = 0.1, 20.0


@torch.no_grad()
def density_ratio(logits: Tensor) -> Tensor:
    """r = p_real / p_fake of logits [b], clipped to 0.1..20, float32."""
    return logits.float().exp().clamp(LOWEST, HIGHEST)


@torch.no_grad()
def divergence_weight(r: Tensor, divergence: Divergence) -> Tensor:
    """h(r) = r^2 f''(r) of each sample, [b].

    Args:
        r: density ratio, [b].
        divergence: reverse_kl: 1; kl: r; js: 1 - 1 / (1 + r); hellinger: sqrt(r); jeffreys: 1 + r (constants aside).
    """
    return {
        "reverse_kl": torch.ones_like(r),
        "kl": r,
        "js": 1 - 1 / (1 + r),
        "hellinger": r.sqrt(),
        "jeffreys": 1 + r,
    }[divergence]
