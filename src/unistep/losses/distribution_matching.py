"""The distribution-matching loss: its gradient moves samples from the fake distribution towards the real one.

DMD, arXiv:2311.18828v4, Eq. 7 and 8, in the form of its Algorithm 2. With the denoisers mu_base (teacher) and mu_fake,
s_fake - s_real = alpha_t (mu_fake - mu_base) / sigma_t^2 (Eq. 4, 5), so that Eq. 7 with the weight of Eq. 8 reads
alpha_t (mu_fake - mu_base) / mean|mu_base - x|. Algorithm 2 leaves out the factor alpha_t, and so do we: the two are
the same for EDM (alpha = 1) and differ by exactly alpha_t for VP.
"""

from typing import Literal

import torch
from torch import Tensor

from unistep.types import bcast

Weighting = Literal["eq8", "sigma_over_alpha", "sigma3_over_alpha", "uniform"]


def distribution_matching_loss(x: Tensor, gradient: Tensor) -> Tensor:
    """Surrogate whose derivative by x is gradient / numel: 0.5 mean (x - sg(x - gradient))^2 (Algorithm 2).

    Args:
        x: generator samples [b, *dims], with grad.
        gradient: what Eq. 7 wants to subtract from each sample, [b, *dims].

    Returns:
        One loss per sample [b]. The mean over dims fixes the balance with the regression loss (lambda_reg).
    """
    target = (x - gradient).detach()
    return 0.5 * (x - target).square().flatten(1).mean(1)


@torch.no_grad()
def distribution_matching_gradient(
    x: Tensor, mu_base: Tensor, mu_fake: Tensor, alpha: Tensor, sigma: Tensor, weighting: Weighting = "eq8"
) -> Tensor:
    """w_t alpha_t (s_fake - s_real) in mean form, float32.

    Args:
        x: clean generator samples [b, *dims].
        mu_base, mu_fake: the two denoised versions of the same noised x [b, *dims].
        alpha, sigma: scales of the process at each sample's t [b].
        weighting: `eq8`: divided by the sample's mean |mu_base - x| (Eq. 8, without alpha_t as in Algorithm 2);
            `sigma_over_alpha` and `sigma3_over_alpha`: w_t of the paper's Table 2 ablation;
            `uniform`: w_t = 1, the plain gradient of the time-averaged KL (Eq. 7).

    A sample whose denominator in Eq. 8 is exactly zero equals the teacher's answer in every coordinate; its gradient
    is defined as zero, and no other value is touched.
    """
    difference = mu_fake.float() - mu_base.float()
    if weighting == "eq8":
        denominator = (x.float() - mu_base.float()).abs().flatten(1).mean(1)  # Eq. 8: ||mu_base - x||_1 / (C S)
        weight = torch.where(denominator > 0, 1 / denominator, torch.zeros_like(denominator))
        return bcast(weight, x) * difference
    alpha, sigma = alpha.float(), sigma.float()
    weight = {  # w_t alpha_t^2 / sigma_t^2, since s_fake - s_real = alpha_t (mu_fake - mu_base) / sigma_t^2
        "sigma_over_alpha": alpha / sigma,
        "sigma3_over_alpha": alpha * sigma,
        "uniform": (alpha / sigma) ** 2,
    }[weighting]
    return bcast(weight, x) * difference
