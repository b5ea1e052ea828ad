"""What the methods with a discriminator on the fake score share (DMD2, arXiv:2405.14867, section 4.3)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unistep.losses.adversarial import fooling_loss, telling_loss
from unistep.losses.denoising import denoising_loss
from unistep.methods.base import Batch, LossOutput, Random
from unistep.methods.matching import noise_uniformly
from unistep.process.base import NoiseProcess
from unistep.types import Cond, joined


def fooling(judged: nn.Module, process: NoiseProcess, x: Tensor, cond: Cond, rng: Random) -> Tensor:
    """How plainly the noised samples are told from real images, [b], with gradients to the samples."""
    t, x_t = noise_uniformly(process, x, rng)
    return fooling_loss(judged(x_t, t, cond, decoded=False))


def denoising_and_telling(
    judged: nn.Module,
    process: NoiseProcess,
    noisy: tuple[Tensor, Tensor],
    x: Tensor,
    batch: Batch,
    rng: Random,
    *,
    weighting: Callable[[Tensor], Tensor],
    lambda_telling: float,
) -> LossOutput:
    """L_denoise of x and the discriminator's loss; real and fake at noise levels of their own.

    The network is evaluated whole on x_t, and its encoder alone on real and fake.

    Args:
        judged: the fake score with its head.
        process: the noise process.
        noisy: t [b] and x_t [b, *dims] for the denoising.
        x: the generator's samples [b, *dims], without gradients.
        batch: its conditions, and real images with theirs.
        rng: randomness of the phase.
        weighting: of the denoising loss, t -> [b].
        lambda_telling: weight of the discriminator's loss.

    Raises:
        ValueError: for a batch without real images.
    """
    if batch.real is None:
        raise ValueError("found a batch without real images, expected some: the discriminator learns from them")
    t, x_t = noisy
    t_fake, fake = noise_uniformly(process, x, rng)
    t_real, real = noise_uniformly(process, batch.real, rng)
    mu, cond = judged(x_t, t, batch.cond), joined(batch.cond, batch.real_cond)
    logits = judged(torch.cat([fake, real]), torch.cat([t_fake, t_real]), cond, decoded=False)
    on_fake, on_real = logits.split([len(x), len(batch.real)])
    terms = {
        "denoise": denoising_loss(mu, x, weighting(t)),
        "telling": telling_loss(on_fake, on_real),
    }
    return LossOutput(terms=terms, weights={"denoise": 1.0, "telling": lambda_telling}, logs=told(on_fake, on_real))


def told(on_fake: Tensor, on_real: Tensor) -> dict[str, Tensor]:
    """The shares of real and of fake samples that a discriminator is right about."""
    return {"told_real": (on_real > 0).float().mean(), "told_fake": (on_fake < 0).float().mean()}
