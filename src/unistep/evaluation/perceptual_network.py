"""The network for perceptual losses: not the judge's architecture, so that no loss trains on what judges it."""

from torch import Tensor, nn


class PerceptualNetwork(nn.Module):
    """Plain convolutional classifier in three stages, without skips, smooth everywhere (SiLU, average pooling).

    Its forward pass gives the feature maps of the three stages; `logits` is only for its own training. At 28x28x1 it
    has 70 thousand parameters and needs 6.3 million multiply-adds.
    """

    def __init__(self, channels: int, size: int, num_classes: int, widths: tuple[int, int, int] = (12, 32, 64)) -> None:
        super().__init__()
        self.config = dict(channels=channels, size=size, num_classes=num_classes, widths=list(widths))
        sizes = (channels, *widths)
        self.stages = nn.ModuleList(stage(a, b) for a, b in zip(sizes, widths, strict=False))
        self.pool = nn.AvgPool2d(2)
        self.classify = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images in model space [b, c, h, w] in [-1, 1], differentiable -> maps [b, width, h / 2^i, w / 2^i]."""
        maps = [self.stages[0](x)]
        for deeper in list(self.stages)[1:]:
            maps.append(deeper(self.pool(maps[-1])))
        return maps

    def logits(self, images: Tensor) -> Tensor:
        """uint8 images [b, c, h, w] (or float, 0..255) -> class logits [b, k]."""
        x = images.to(self.classify.weight.dtype) / 127.5 - 1
        return self.classify(self.forward(x)[-1].mean((2, 3)))


def stage(inputs: int, outputs: int) -> nn.Sequential:
    """Twice: 3x3 convolution, group normalisation, SiLU."""
    layers: list[nn.Module] = []
    for a in (inputs, outputs):
        layers += [nn.Conv2d(a, outputs, 3, padding=1, bias=False), nn.GroupNorm(outputs // 4, outputs), nn.SiLU()]
    return nn.Sequential(*layers)
