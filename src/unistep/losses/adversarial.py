"""The non-saturating GAN loss (Goodfellow et al. 2014, arXiv:1406.2661) from logits, one value per sample.

A logit is the log of the odds that a sample is real; DMD2 (arXiv:2405.14867, section 4.3) asks it of noised samples.
At the best discriminator it is log p_real(x_t) - log p_fake(x_t).
"""

import torch.nn.functional as F
from torch import Tensor


def fooling_loss(fake: Tensor) -> Tensor:
    """The generator's: softplus(-D(fake)) = -log of the odds' share, logits [b] -> [b]."""
    return F.softplus(-fake.float())


def telling_loss(fake: Tensor, real: Tensor) -> Tensor:
    """The discriminator's: softplus(D(fake)) + softplus(-D(real)), logits [b] twice -> [b]."""
    return F.softplus(fake.float()) + F.softplus(-real.float())
