"""LPIPS with VGG16 (Zhang et al. 2018, arXiv:1801.03924), and how DMD asks it (appendix B)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unistep.errors import UserError

WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)  # of VGG16; 0 = pooling
SEEN = (3, 8, 15, 22, 29)  # relu1_2, relu2_2, relu3_3, relu4_3, relu5_3
SIZE = 224  # to which smaller images are brought
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's: LPIPS's shift and scale, for images in [0, 1]


class LPIPS(nn.Module):
    """The distance of Eq. 9: a perceptual metric, of images upsampled bilinearly to 224 where they are smaller."""

    def __init__(self, metric: nn.Module) -> None:
        super().__init__()
        self.metric = metric.eval().requires_grad_(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Images [b, 1 or 3, h, w] in [-1, 1] twice -> [b], in float32: bf16 would round away distances of 1e-4."""
        with torch.autocast(x.device.type, enabled=False):
            return self.metric(*(self.prepare(image) for image in (x, y))).flatten()

    def prepare(self, x: Tensor) -> Tensor:
        """[-1, 1] to three channels in [0, 1], at 224 x 224 or as large as they are.

        What lies outside is seen at the edge, and its gradient passes: a pixel too bright could else not come back.
        """
        x = x.float().expand(-1, 3, -1, -1)
        if min(x.shape[-2:]) < SIZE:
            x = F.interpolate(x, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
        x = (x + 1) / 2
        return x + (x.clamp(0, 1) - x).detach()


class VGGMetric(nn.Module):
    """sum_l mean_hw w_l . (f_l(x) - f_l(y))^2 over five layers of VGG16, f_l of unit length along the channels.

    Its parameters have the names of torchvision's VGG16 (`features.N.weight`) and of LPIPS's own file
    (`lin0.model.1.weight`).
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for width in WIDTHS:
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()] if width else [nn.MaxPool2d(2)]
            inputs = width or inputs
        self.features = nn.Sequential(*layers)
        self.lin0, self.lin1, self.lin2, self.lin3, self.lin4 = (Lin(width) for width in (64, 128, 256, 512, 512))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Images [b, 3, h, w] in [0, 1] twice -> [b]."""
        lins = (self.lin0, self.lin1, self.lin2, self.lin3, self.lin4)
        layers = [lin((f - g).square()) for lin, f, g in zip(lins, self.maps(x), self.maps(y), strict=True)]
        return torch.stack([layer.mean((1, 2, 3)) for layer in layers]).sum(0)

    def maps(self, x: Tensor) -> list[Tensor]:
        """The five feature maps, each of unit length along the channels; where all are zero they stay so."""
        x = (x - x.new_tensor(MEAN)[:, None, None]) / x.new_tensor(STD)[:, None, None]
        found = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in SEEN:
                found.append(F.normalize(x, dim=1, eps=1e-10))
        return found


class Lin(nn.Module):
    """Learnt weights of channels; the dropout that stood before them in training is nothing here."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Identity(), nn.Conv2d(channels, 1, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def piq_metric() -> nn.Module:
    """The same from the piq library (extra `lpips`), which fetches the weights itself.

    Raises:
        UserError: without the library.
    """
    try:
        import piq  # pyright: ignore[reportMissingImports] (an extra)
    except ImportError as error:
        raise UserError(
            "method.regression: found 'lpips' but neither method.lpips_weights (torchvision's VGG16 file and LPIPS's "
            "vgg.pth) nor the library piq; name the files, or pip install 'unistep[lpips]' (it needs torchvision), or "
            "choose perceptual, multiscale or l2"
        ) from error
    return piq.LPIPS(reduction="none")
