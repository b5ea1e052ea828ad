"""The denoising loss that keeps the fake score up to date (Eq. 6), and that teaches a teacher."""

from torch import Tensor


def denoising_loss(mu: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """weight(t) mean (mu(x_t, t) - x)^2, DMD arXiv:2311.18828v4, Eq. 6 and Algorithm 3.

    Args:
        mu: denoised samples [b, *dims].
        x: clean samples [b, *dims]; detached by the caller where they come from the generator.
        weight: the teacher's training weight at each sample's t [b].

    Returns:
        One loss per sample [b].
    """
    return weight.float() * (mu.float() - x.float()).square().flatten(1).mean(1)
