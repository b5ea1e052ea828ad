"""The score-identity loss of SiD (arXiv:2404.04057), whose gradient goes through both scores."""

import torch
from torch import Tensor

from unistep.types import bcast


def score_identity_loss(x: Tensor, mu_base: Tensor, mu_fake: Tensor, a: float) -> Tensor:
    """C (mu_base - mu_fake) . ((mu_base - x) - a (mu_base - mu_fake)) / |x - mu_base|_1, one value per sample [b].

    With d = mu_base - mu_fake this is (1 - a) |d|^2 + d . (mu_fake - x): at a = 0 an estimate of the Fisher divergence
    by the score identity, less `a` times its naive estimate, which is biased the other way. As everywhere here the
    mean over dims is taken; the paper sums. A sample that equals the teacher's answer in every coordinate has loss 0.

    Args:
        x: generator samples [b, *dims], with gradients.
        mu_base, mu_fake: the two denoised versions of the same noised x [b, *dims], with gradients to x.
        a: the paper's alpha.
    """
    x, mu_base, mu_fake = x.float(), mu_base.float(), mu_fake.float()
    difference = mu_base - mu_fake
    weight = inverse_distance(x, mu_base)
    return (bcast(weight, x) * difference * ((mu_base - x) - a * difference)).flatten(1).mean(1)


@torch.no_grad()
def inverse_distance(x: Tensor, mu_base: Tensor) -> Tensor:
    """1 / mean|x - mu_base| of each sample [b], float32; 0 where they are equal in every coordinate."""
    size = (x.float() - mu_base.float()).abs().flatten(1).mean(1)
    return torch.where(size > 0, 1 / size, torch.zeros_like(size))
