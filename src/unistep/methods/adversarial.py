"""GAN losses of a discriminator on noised samples (DMD2, arXiv:2405.14867, section 4.3)."""

import torch
from torch import Tensor, nn

from unistep.diffusion.process.base import NoiseProcess
from unistep.losses.adversarial import discriminator_loss, generator_gan_loss
from unistep.methods.base import Batch, Random
from unistep.methods.scores import sample_noised
from unistep.types import Cond, cat_conditions


def noised_generator_loss(
    discriminator: nn.Module, process: NoiseProcess, x: Tensor, cond: Cond, rng: Random
) -> Tensor:
    """The generator's GAN loss [b] on noised samples, with gradients to the samples."""
    t, x_t = sample_noised(process, x, rng)
    return generator_gan_loss(discriminator(x_t, t, cond, output="logits"))


def noised_discriminator_loss(
    discriminator: nn.Module, process: NoiseProcess, x: Tensor, batch: Batch, rng: Random
) -> tuple[Tensor, dict[str, Tensor]]:
    """The discriminator's loss [b] on noised samples and noised real images, and its accuracies.

    Samples and real images have noise levels of their own; the encoder is evaluated on both in one pass.

    Args:
        discriminator: a `DenoiserWithDiscriminator`.
        process: the noise process.
        x: the generator's samples [b, *dims], without gradients.
        batch: the samples' condition, and real images with theirs.
        rng: randomness of the phase.

    Raises:
        ValueError: for a batch without real images.
    """
    x_real, cond_real = batch.images()
    t_fake, x_t_fake = sample_noised(process, x, rng)
    t_real, x_t_real = sample_noised(process, x_real, rng)
    x_t, t, cond = torch.cat([x_t_fake, x_t_real]), torch.cat([t_fake, t_real]), cat_conditions(batch.cond, cond_real)
    fake, real = discriminator(x_t, t, cond, output="logits").split([len(x), len(x_real)])
    return discriminator_loss(fake, real), discriminator_accuracies(fake, real)


def discriminator_accuracies(fake: Tensor, real: Tensor) -> dict[str, Tensor]:
    """The shares of real and of generated samples that a discriminator classifies correctly."""
    return {"disc_acc_real": (real > 0).float().mean(), "disc_acc_fake": (fake < 0).float().mean()}
