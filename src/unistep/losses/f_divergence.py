"""The weighting of f-distill (arXiv:2502.15681): other divergences than the reverse KL on the same score difference.

The gradient of D_f(p_real || p_fake) is that of the reverse KL times h(r) with r = p_real / p_fake at x_t, which a
discriminator knows: r = exp(logit).
"""

from typing import Literal

import torch
from torch import Tensor

Divergence = Literal["reverse_kl", "kl", "js", "hellinger", "jeffreys"]
LOWEST, HIGHEST = 0.1, 20.0


@torch.no_grad()
def divergence_weight(logits: Tensor, divergence: Divergence) -> Tensor:
    """h(r) = r^2 f''(r) of each sample, clipped to 0.1..20 and divided by the batch's mean, float32 [b].

    Args:
        logits: log r, [b].
        divergence: reverse_kl: 1; kl: r; js: 1 - 1 / (1 + r); hellinger: sqrt(r); jeffreys: 1 + r (constants aside).
    """
    r = logits.float().exp()
    h = {
        "reverse_kl": torch.ones_like(r),
        "kl": r,
        "js": 1 - 1 / (1 + r),
        "hellinger": r.sqrt(),
        "jeffreys": 1 + r,
    }[divergence].clamp(LOWEST, HIGHEST)
    return h / h.mean()
