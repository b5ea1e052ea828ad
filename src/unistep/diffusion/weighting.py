"""The training weight of Eq. 6 of a network, as a weight on the x_0 error: the plain error of what it predicts.

A fake score must be trained like its teacher (DMD, arXiv:2311.18828v4, Eq. 6), and networks are trained with the plain
mean squared error of their own prediction p. Every denoiser here predicts x_0, and p = a x_0 + b x_t at a given x_t
(`prediction.py`), so |p - p'|^2 = a^2 |x_0 - x_0'|^2 and the weight is a^2, for every prediction and every process.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from unistep.diffusion.prediction import Prediction, row
from unistep.diffusion.process.base import NoiseProcess
from unistep.errors import UserError

Weight = Callable[[Tensor], Tensor]


def training_weight(prediction: Prediction, process: NoiseProcess, t: Tensor, sigma_data: float = 0.5) -> Tensor:
    """a^2 of prediction = a x_0 + b x_t, t [b] -> [b] in t's dtype (float32 for whole numbers).

    - x0: 1.
    - eps: SNR = alpha^2 / sigma^2 (DDPM's simple loss).
    - v: 1 / sigma^2 = SNR + 1 on variance-preserving processes, which is 1 where alpha = 0.
    - velocity: 1 / t^2 on rectified flow.
    - F: EDM's lambda = 1 / c_out^2 (arXiv:2206.00364, Table 1).
    - score: alpha^2 / sigma^4; a score network trained with sigma^2 times its plain error has the weight of eps, to be
      given to `teacher_from_module` as its `weighting`.

    Where sigma = 0 it is infinite (x0's is not). Nothing is checked here, which would wait for the device; see
    `require_weight`.
    """
    scale, on_x0, _ = row(prediction, process, t, sigma_data)
    return (on_x0 / scale).square().to(t.dtype if t.is_floating_point() else torch.float32)


def require_weight(prediction: Prediction, process: NoiseProcess, sigma_data: float = 0.5) -> None:
    """Refuses a prediction that a fake score could not learn at some level of the training grid.

    Raises:
        UserError: for a weight of 0, where the prediction says nothing about x_0 (eps and score at alpha = 0, where a
            generator starts), and for one that is not finite (sigma = 0).
    """
    u = torch.linspace(0, 1, process.num_bins, dtype=torch.float64, device="cpu")
    t = process.time(u)
    weight = training_weight(prediction, process, t, sigma_data)
    wrong = ~((weight > 0) & weight.isfinite())
    if bool(wrong.any()):
        raise UserError(
            f"prediction: found {prediction} with weight {float(weight[wrong][0]):g} at t = {float(t[wrong][0]):g}, "
            "expected a positive finite one: eps and score say nothing about x_0 at alpha = 0 (networks of such "
            "schedules predict v or x0), and at sigma = 0 there is no noise; check prediction and process"
        )


def training_weighting(prediction: Prediction, process: NoiseProcess, sigma_data: float = 0.5) -> Weight:
    """`training_weight` as a function of t alone, once its whole grid has been checked.

    Raises:
        UserError: as `require_weight` does.
    """
    require_weight(prediction, process, sigma_data)
    return partial(training_weight, prediction, process, sigma_data=sigma_data)
