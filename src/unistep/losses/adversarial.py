"""The non-saturating GAN loss (Goodfellow et al. 2014, arXiv:1406.2661) from logits, one value per sample.

A logit is the log-odds that a sample is real; DMD2 (arXiv:2405.14867, section 4.3) computes it for noised samples.
For the optimal discriminator it is log p_real(x_t) - log p_fake(x_t).
"""

import torch.nn.functional as F
from torch import Tensor


def generator_gan_loss(fake: Tensor) -> Tensor:
    """The generator's loss softplus(-D(fake)) = -log sigmoid(D(fake)), logits [b] -> [b]."""
    return F.softplus(-fake.float())


def discriminator_loss(fake: Tensor, real: Tensor) -> Tensor:
    """The discriminator's loss softplus(D(fake)) + softplus(-D(real)), logits [b] twice -> [b]."""
    return F.softplus(fake.float()) + F.softplus(-real.float())
