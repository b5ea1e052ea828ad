"""The regression loss on noise-image pairs (Eq. 9): how far G(z) is from the teacher's own answer to z."""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unistep.errors import UserError
from unistep.losses.lpips import LPIPS, piq_metric

RegressionName = Literal["l2", "pseudo_huber", "multiscale", "perceptual", "lpips"]
OF_IMAGES = ("multiscale", "perceptual", "lpips")
Pairwise = Callable[[Tensor, Tensor], Tensor]
"""(x, y) [b, *dims] twice -> [b]."""


class Features(Protocol):
    """A frozen network that returns feature maps of images in model space."""

    def __call__(self, x: Tensor) -> list[Tensor]: ...


def l2(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared difference, [b, *dims] twice -> [b]."""
    return (x - y).float().square().flatten(1).mean(1)


def pseudo_huber(x: Tensor, y: Tensor, c: float = 0.00054) -> Tensor:
    """(sqrt(|x - y|^2 + (c sqrt(n))^2) - c sqrt(n)) / sqrt(n) over the n coordinates, [b] (arXiv:2310.14189).

    The default c is the factor that paper recommends. It is nearly the root mean square of a sample: samples far off
    pull no harder than others, and within a sample pixels weigh as in L2.
    """
    difference = (x - y).float().flatten(1)
    n = difference.shape[1]
    return (difference.square().sum(1) / n + c**2).sqrt() - c


def multiscale(x: Tensor, y: Tensor, levels: int = 3) -> Tensor:
    """Mean of L2 over a pyramid of 2x averages, [b, c, h, w] twice -> [b]: large structure counts as much as detail.

    Raises:
        UserError: for samples that are no images, which have nothing to average over.
    """
    require_images("multiscale", x.shape[1:])
    total, used = l2(x, y), 1
    while used < levels and min(x.shape[-2:]) >= 4:
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        total, used = total + l2(x, y), used + 1
    return total / used


def perceptual(features: Features, x: Tensor, y: Tensor, pixel_weight: float = 1.0) -> Tensor:
    """Squared distance of channel-normalised feature maps, summed over layers, plus pixel_weight * L2, [b].

    The form of LPIPS (Zhang et al. 2018) without learnt weights. The network is never the one that judges.
    """
    total = pixel_weight * l2(x, y)
    for f, g in zip(features(x), features(y), strict=True):
        f, g = F.normalize(f.float(), dim=1, eps=1e-6), F.normalize(g.float(), dim=1, eps=1e-6)
        total = total + (f - g).square().sum(1).flatten(1).mean(1)
    return total


class Perceptual(nn.Module):
    """`perceptual` with its network, so that whoever counts or moves the networks of a method finds it."""

    def __init__(self, features: Features, pixel_weight: float = 1.0):
        super().__init__()
        self.features, self.pixel_weight = features, pixel_weight

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Images in model space [b, c, h, w] twice -> [b]."""
        return perceptual(self.features, x, y, self.pixel_weight)


def of_decoded(distance: Pairwise, decode: Callable[[Tensor], Tensor]) -> Pairwise:
    """A distance of images as one of latents: (x, y) -> distance(decode(x), decode(y)), with gradients to x alone."""

    def decoded(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            target = decode(y)
        return distance(decode(x), target)

    return decoded


def require_images(name: RegressionName, dims: Sequence[int]) -> None:
    """Refuses samples [b, *dims] that a distance of images cannot compare.

    Raises:
        UserError: naming the setting.
    """
    if name in OF_IMAGES and len(dims) != 3:
        raise UserError(
            f"method.regression: found {name!r} for samples of shape {list(dims)}, expected images [c, h, w]; "
            "choose l2 or pseudo_huber"
        )


def build_regression(
    name: RegressionName,
    features: Features | None = None,
    pixel_weight: float = 1.0,
    lpips: nn.Module | None = None,
) -> Pairwise:
    """The regression loss (x, y) -> [b] of that name.

    Args:
        name: of the loss.
        features: the frozen network of `perceptual`.
        pixel_weight: of the L2 beside `perceptual`.
        lpips: the metric of `lpips` on images in [0, 1]; None = the piq library's.

    Raises:
        UserError: for `perceptual` without a feature network, or `lpips` without metric and library.
    """
    if name == "perceptual":
        if features is None:
            raise UserError(
                "method.regression: found 'perceptual' but no feature network; set method.perceptual_network, "
                "for example to embedded:fashion-mnist, or choose multiscale or l2"
            )
        return Perceptual(features, pixel_weight)
    if name == "lpips":
        return LPIPS(lpips or piq_metric())
    return {"l2": l2, "pseudo_huber": pseudo_huber, "multiscale": multiscale}[name]
