"""The forward process on rows at times of their own, x_t = alpha_t x_0 + sigma_t eps, and the time that is data."""

from torch import Tensor

from unistep.process.base import NoiseProcess
from unistep.types import bcast


def noised(process: NoiseProcess, x: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """x_t = alpha_t x + sigma_t eps (DMD, arXiv:2311.18828v4, Eq. 3).

    Args:
        process: the noise process.
        x: clean samples [b, *dims].
        t: times [b].
        eps: noise [b, *dims].
    """
    return bcast(process.alpha(t), x) * x + bcast(process.sigma(t), x) * eps


def data_time(process: NoiseProcess) -> float:
    """The time without noise: 0, or -1 for a table of timesteps."""
    return float(process.sampling_times(1)[-1])
