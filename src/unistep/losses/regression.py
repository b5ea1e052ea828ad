"""The regression loss on noise-image pairs (Eq. 9): how far G(z) is from the teacher's own answer to z."""

from collections.abc import Callable
from typing import Literal, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from unistep.errors import UserError

RegressionName = Literal["l2", "pseudo_huber", "multiscale", "perceptual", "lpips"]


class Features(Protocol):
    """A frozen network that returns feature maps of images in model space."""

    def __call__(self, x: Tensor) -> list[Tensor]: ...


def l2(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared difference, [b, *dims] twice -> [b]."""
    return (x - y).float().square().flatten(1).mean(1)


def pseudo_huber(x: Tensor, y: Tensor, c: float = 0.00054) -> Tensor:
    """(sqrt(|x - y|^2 + (c sqrt(n))^2) - c sqrt(n)) / sqrt(n) over the n coordinates, [b] (arXiv:2310.14189).

    The default c is the factor that paper recommends. Per coordinate it is nearly L1: a few wrong pixels cost little.
    """
    difference = (x - y).float().flatten(1)
    n = difference.shape[1]
    return (difference.square().sum(1) / n + c**2).sqrt() - c


def multiscale(x: Tensor, y: Tensor, levels: int = 3) -> Tensor:
    """Mean of L2 over a pyramid of 2x averages, [b, c, h, w] twice -> [b]: large structure counts as much as detail."""
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
    """`perceptual` with its network, so that whoever moves or counts a method's networks finds it."""

    def __init__(self, features: Features, pixel_weight: float = 1.0):
        super().__init__()
        self.features, self.pixel_weight = features, pixel_weight

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Images in model space [b, c, h, w] twice -> [b]."""
        return perceptual(self.features, x, y, self.pixel_weight)


class LPIPS(nn.Module):
    """LPIPS with VGG from the piq library (extra `lpips`), images upsampled bilinearly to 224 (DMD, appendix B)."""

    def __init__(self) -> None:
        super().__init__()
        try:
            import piq  # pyright: ignore[reportMissingImports] (an extra)
        except ImportError as error:
            raise UserError(
                "method.regression: found 'lpips' but the library piq cannot be imported; "
                "pip install 'unistep[lpips]' (it needs torchvision), or choose perceptual, multiscale or l2"
            ) from error
        self.metric = piq.LPIPS(reduction="none").eval().requires_grad_(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Images [b, 1 or 3, h, w] in [-1, 1] twice -> [b]."""
        return self.metric(*(self.prepare(image) for image in (x, y))).flatten()

    def prepare(self, x: Tensor) -> Tensor:
        """[-1, 1] to three channels in [0, 1] at 224 x 224."""
        x = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x
        x = F.interpolate(x.float(), size=(224, 224), mode="bilinear", align_corners=False)
        return ((x + 1) / 2).clamp(0, 1)


def build_regression(
    name: RegressionName, features: Features | None = None, pixel_weight: float = 1.0
) -> Callable[[Tensor, Tensor], Tensor]:
    """The regression loss (x, y) -> [b] of that name; `pixel_weight` is that of the L2 beside `perceptual`.

    Raises:
        UserError: for `perceptual` without a feature network, or `lpips` without its library.
    """
    if name == "perceptual":
        if features is None:
            raise UserError(
                "method.regression: found 'perceptual' but no feature network; set method.perceptual_network, "
                "for example to embedded:fashion-mnist, or choose multiscale or l2"
            )
        return Perceptual(features, pixel_weight)
    return LPIPS() if name == "lpips" else {"l2": l2, "pseudo_huber": pseudo_huber, "multiscale": multiscale}[name]
