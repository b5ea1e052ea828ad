"""The network that judges images: a small residual classifier whose pooled features feed every metric."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn


class Judgement(NamedTuple):
    """Features [b, d] and class logits [b, k] of a batch of images."""

    features: Tensor
    logits: Tensor


class JudgeNetwork(nn.Module):
    """Residual network with batch normalisation, for square images from 8x8 up.

    One pooling brings any image to 8..15 pixels a side (14 for 28x28), two strided blocks to a quarter of that. At
    28x28x1 it has 215 thousand parameters and needs 7.2 million multiply-adds.
    """

    def __init__(self, channels: int, size: int, num_classes: int, num_features: int = 64) -> None:
        super().__init__()
        self.config = dict(channels=channels, size=size, num_classes=num_classes, num_features=num_features)
        self.stem = nn.Sequential(conv_norm(channels, 24), nn.ReLU(), nn.MaxPool2d(max(1, size // 14)))
        self.blocks = nn.Sequential(ResidualBlock(24, 24), ResidualBlock(24, 64, 2), ResidualBlock(64, 96, 2))
        self.head = nn.Sequential(conv_norm(96, num_features, kernel=1), nn.ReLU())
        self.classify = nn.Linear(num_features, num_classes)

    def forward(self, images: Tensor) -> Judgement:
        """uint8 [b, c, h, w] (0..255, or float of that range) -> features [b, d] and logits [b, k]."""
        x = images.to(self.classify.weight.dtype) / 127.5 - 1
        features = self.head(self.blocks(self.stem(x))).mean((2, 3))
        return Judgement(features, self.classify(features))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a 1x1 (or nothing, where the shape stays)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = conv_norm(inputs, outputs, stride)
        self.second = conv_norm(outputs, outputs)
        same = inputs == outputs and stride == 1
        self.skip = nn.Identity() if same else conv_norm(inputs, outputs, stride, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """[b, inputs, h, w] -> [b, outputs, h / stride, w / stride], rounded up."""
        return F.relu(self.skip(x) + self.second(F.relu(self.first(x))))


def conv_norm(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """Convolution that keeps the size (over the stride), then batch normalisation, which brings the bias."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))
