"""What networks predict, as one table of linear coefficients, and every conversion between the six kinds.

Each kind p satisfies  scale p = on_x0 x_0 + on_xt x_t  with x_t = alpha x_0 + sigma eps:

    x0        the clean sample
    eps       the noise, (x_t - alpha x_0) / sigma
    v         alpha eps - sigma x_0                          (Salimans and Ho, arXiv:2202.00512)
    velocity  alpha' x_0 + sigma' eps, d x_t / dt            (rectified flow: eps - x_0)
    score     -eps / sigma, the gradient of log p_t          (DMD, arXiv:2311.18828v4, Eq. 4)
    F         EDM's raw network, mu = c_skip x_t + c_out F   (arXiv:2206.00364, Eq. 7)

Keeping `scale` apart from the other two tells the two singular cases from each other without a division: `scale` = 0
means x_0 does not determine p (sigma = 0), `on_x0` = 0 means p does not determine x_0 (eps and score at alpha = 0).
"""

from difflib import get_close_matches
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from unistep.diffusion.process.base import NoiseProcess
from unistep.errors import UserError
from unistep.types import bcast

Prediction = Literal["x0", "eps", "v", "velocity", "score", "F"]


ELSEWHERE: dict[str, Prediction] = {
    "epsilon": "eps", "noise": "eps", "v_prediction": "v", "v-prediction": "v", "sample": "x0", "x_0": "x0",
    "flow": "velocity", "flow_prediction": "velocity", "edm": "F",
}  # fmt: skip
"""What diffusers and others call the kinds."""


class Row(NamedTuple):
    """scale p = on_x0 x_0 + on_xt x_t, each float64 [b]."""

    scale: Tensor
    on_x0: Tensor
    on_xt: Tensor


def require_prediction(kind: str) -> None:
    """Refuses a kind that is not in the table.

    Raises:
        UserError: naming the kinds.
    """
    if kind not in (names := get_args(Prediction)):
        close = get_close_matches(str(kind), names, 1, cutoff=0.5)
        nearest = ELSEWHERE.get(str(kind)) or next(iter(close), None)
        hint = f"; did you mean {nearest}?" if nearest else ","
        raise UserError(f"prediction: found {kind!r}{hint} expected one of {', '.join(names)}")


def row(kind: Prediction, process: NoiseProcess, t: Tensor, sigma_data: float = 0.5) -> Row:
    """A kind's line of the table at times t [b].

    Raises:
        UserError: for an unknown kind.
    """
    require_prediction(kind)
    t = t.double()
    alpha, sigma = process.alpha(t), process.sigma(t)
    one, zero = torch.ones_like(alpha), torch.zeros_like(alpha)
    if kind == "x0":
        return Row(one, one, zero)
    if kind == "eps":
        return Row(sigma, -alpha, one)
    if kind == "v":
        return Row(sigma, -(alpha**2 + sigma**2), alpha)
    if kind == "score":
        return Row(sigma**2, alpha, -one)
    if kind == "velocity":
        alpha_dot, sigma_dot = process.alpha_dot(t), process.sigma_dot(t)
        return Row(sigma, alpha_dot * sigma - sigma_dot * alpha, sigma_dot)
    total = (alpha * sigma_data) ** 2 + sigma**2  # variance of x_t; F's target and input have unit variance
    return Row(sigma * sigma_data / total.sqrt(), one, -alpha * sigma_data**2 / total)


def coefficients(kind: Prediction, process: NoiseProcess, t: Tensor, sigma_data: float = 0.5) -> tuple[Tensor, Tensor]:
    """(a, b), float64 [b], with prediction = a x_0 + b x_t; not finite where sigma = 0, for every kind but x0.

    Nothing is checked, because a check would wait for the device; callers outside a training step check with
    `from_x0`.

    Raises:
        UserError: for an unknown kind.
    """
    scale, on_x0, on_xt = row(kind, process, t, sigma_data)
    return on_x0 / scale, on_xt / scale


def require_x0(kind: Prediction, process: NoiseProcess, t: Tensor, sigma_data: float = 0.5) -> None:
    """Refuses times [b] at which a prediction does not determine x_0.

    Raises:
        UserError: eps and score at alpha = 0, velocity at some sigma = 0.
    """
    if kind != "x0":
        _refuse_zero(
            row(kind, process, t, sigma_data).on_x0,
            kind,
            t,
            "alpha = 0 or sigma = 0 there, so it does not determine x_0",
        )


def require_x0_on_grid(kind: Prediction, process: NoiseProcess, sigma_data: float = 0.5) -> None:
    """Refuses a prediction that does not determine x_0 at some level of the process's training grid.

    Denoisers call it once, when they are constructed, so that `to_x0` need not wait for the device.

    Raises:
        UserError: naming the first such time.
    """
    u = torch.linspace(0, 1, process.num_bins, dtype=torch.float64, device="cpu")  # also under torch.device("meta")
    require_x0(kind, process, process.time(u), sigma_data)


def to_x0(
    pred: Tensor, x_t: Tensor, t: Tensor, kind: Prediction, process: NoiseProcess, sigma_data: float = 0.5
) -> Tensor:
    """The clean sample that a prediction [b, *dims] stands for, in the prediction's dtype.

    Not finite where the prediction does not determine it, see `require_x0`: a check here, in the forward pass of every
    denoiser, would wait for the device and break the graph of `torch.compile`.
    """
    if kind == "x0":
        return pred
    scale, on_x0, on_xt = row(kind, process, t, sigma_data)
    return bcast(scale / on_x0, pred) * pred - bcast(on_xt / on_x0, pred) * x_t.to(pred.dtype)


def from_x0(
    x_0: Tensor, x_t: Tensor, t: Tensor, kind: Prediction, process: NoiseProcess, sigma_data: float = 0.5
) -> Tensor:
    """The prediction [b, *dims] that belongs to a clean sample, in its dtype.

    Raises:
        UserError: where sigma = 0, for every kind but x0.
    """
    if kind == "x0":
        return x_0
    _refuse_zero(row(kind, process, t, sigma_data).scale, kind, t, "sigma = 0 there, so x_0 does not determine it")
    a, b = coefficients(kind, process, t, sigma_data)
    return bcast(a, x_0) * x_0 + bcast(b, x_0) * x_t.to(x_0.dtype)


def convert(
    pred: Tensor,
    x_t: Tensor,
    t: Tensor,
    source: Prediction,
    target: Prediction,
    process: NoiseProcess,
    sigma_data: float = 0.5,
) -> Tensor:
    """One kind of prediction to another, by way of x_0; a kind converts to itself untouched.

    eps and score are both the noise, so one becomes the other without x_0, at alpha = 0 too.

    Raises:
        UserError: where source does not determine x_0, or x_0 does not determine target.
    """
    if source == target:
        return pred
    if {source, target} == {"eps", "score"}:
        sigma = process.sigma(t.double())
        _refuse_zero(sigma, target, t, "sigma = 0 there, where there is no noise")
        return bcast(-1 / sigma if target == "score" else -sigma, pred) * pred
    require_x0(source, process, t, sigma_data)
    x_0 = to_x0(pred, x_t, t, source, process, sigma_data)
    return from_x0(x_0, x_t, t, target, process, sigma_data)


def _refuse_zero(divisor: Tensor, kind: str, t: Tensor, reason: str) -> None:
    singular = (divisor == 0) | ~divisor.isfinite()
    if bool(singular.any()):
        raise UserError(f"prediction {kind}: found t = {float(t[singular][0]):g}, expected another time: {reason}")
