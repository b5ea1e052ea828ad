"""The weight of Eq. 6 that each family of models is usually trained with, as a weight on the x_0 error.

A fake score must be trained like its teacher (DMD, arXiv:2311.18828v4, Eq. 6). Every denoiser here predicts x_0, so a
plain mean squared error in the family's own prediction type becomes a weight on the x_0 error, by the coefficient of
x_0 in `prediction.py`, squared.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from unistep.errors import UserError
from unistep.process.base import NoiseProcess

Weight = Callable[[Tensor], Tensor]


def default_weighting(process: NoiseProcess, sigma_data: float = 0.5) -> Weight:
    """The usual training weight of a process, t [b] -> [b]; t must be a noisy time (sigma > 0).

    - EDM: 1/sigma^2 + 1/sigma_data^2, the plain error of F (arXiv:2206.00364, Table 1: lambda = 1/c_out^2).
    - VP: SNR = alpha^2/sigma^2, the plain error of eps = (x_t - alpha x_0)/sigma (DDPM's simple loss).
    - VP with zero terminal SNR: 1/sigma^2 = SNR + 1, the plain error of v; such models predict v, because at alpha = 0
      eps says nothing about x_0 and its weight would be zero where the generator starts.
    - Rectified flow: 1/t^2, the plain error of the velocity eps - x_0 = (x_t - x_0)/t.

    Raises:
        UserError: for a process of another family; give the weighting yourself.
    """
    kind = process.config().get("type")
    if kind == "edm":
        return lambda t: 1 / process.sigma(t) ** 2 + 1 / sigma_data**2
    if kind in ("discrete_vp", "continuous_vp"):
        ends_without_signal = float(process.alpha(process.time(torch.ones(1, dtype=torch.float64)))) == 0
        return lambda t: (1.0 if ends_without_signal else process.alpha(t) ** 2) / process.sigma(t) ** 2
    if kind == "flow":
        return lambda t: 1 / process.sigma(t) ** 2
    raise UserError(f"weighting: found process {kind!r}, which has no usual weighting, expected you to give one")
