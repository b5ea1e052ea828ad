"""Inception-v3 as FID knows it (arXiv:1512.00567), under the state-dict names of its well-known PyTorch port."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INPUT = 299  # pixels a side
NUM_FEATURES, NUM_CLASSES = 2048, 1008


def avg_pool(x: Tensor) -> Tensor:
    """3x3 means that keep the size; the border is not padded but averaged over fewer pixels."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def max_pool(x: Tensor) -> Tensor:
    """3x3 maxima that keep the size."""
    return F.max_pool2d(x, 3, stride=1, padding=1)


def halve(x: Tensor) -> Tensor:
    """3x3 maxima at every other pixel."""
    return F.max_pool2d(x, 3, stride=2)


class ConvNorm(nn.Module):
    """Convolution, batch normalisation with its stored statistics, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int = 1, same: bool = True):
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if same else 0
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride, padding, bias=False)
        self.bn = StoredNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class StoredNorm(nn.Module):
    """Batch normalisation by stored statistics, without the counter that only training needs."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=0.001)


class BlockA(nn.Module):
    """35x35: 1x1, 5x5, twice 3x3, pooled."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNorm(inputs, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = ConvNorm(inputs, 48, 1), ConvNorm(48, 64, 5)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = ConvNorm(inputs, 64, 1), ConvNorm(64, 96, 3)
        self.branch3x3dbl_3 = ConvNorm(96, 96, 3)
        self.branch_pool = ConvNorm(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(avg_pool(x))], 1)


class BlockB(nn.Module):
    """35x35 to 17x17."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3 = ConvNorm(288, 384, 3, stride=2, same=False)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = ConvNorm(288, 64, 1), ConvNorm(64, 96, 3)
        self.branch3x3dbl_3 = ConvNorm(96, 96, 3, stride=2, same=False)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, halve(x)], 1)


class BlockC(nn.Module):
    """17x17: 1x1, 7x7 as 1x7 and 7x1, twice 7x7, pooled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNorm(768, 192, 1)
        self.branch7x7_1, self.branch7x7_2 = ConvNorm(768, width, 1), ConvNorm(width, width, (1, 7))
        self.branch7x7_3 = ConvNorm(width, 192, (7, 1))
        self.branch7x7dbl_1, self.branch7x7dbl_2 = ConvNorm(768, width, 1), ConvNorm(width, width, (7, 1))
        self.branch7x7dbl_3, self.branch7x7dbl_4 = ConvNorm(width, width, (1, 7)), ConvNorm(width, width, (7, 1))
        self.branch7x7dbl_5 = ConvNorm(width, 192, (1, 7))
        self.branch_pool = ConvNorm(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(avg_pool(x))], 1)


class BlockD(nn.Module):
    """17x17 to 8x8."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = ConvNorm(768, 192, 1), ConvNorm(192, 320, 3, stride=2, same=False)
        self.branch7x7x3_1, self.branch7x7x3_2 = ConvNorm(768, 192, 1), ConvNorm(192, 192, (1, 7))
        self.branch7x7x3_3 = ConvNorm(192, 192, (7, 1))
        self.branch7x7x3_4 = ConvNorm(192, 192, 3, stride=2, same=False)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, halve(x)], 1)


class BlockE(nn.Module):
    """8x8: 1x1, 3x3 fanned out into 1x3 and 3x1, twice 3x3 likewise, pooled by means or (the last block) by maxima."""

    def __init__(self, inputs: int, last: bool = False) -> None:
        super().__init__()
        self.pool = max_pool if last else avg_pool
        self.branch1x1 = ConvNorm(inputs, 320, 1)
        self.branch3x3_1 = ConvNorm(inputs, 384, 1)
        self.branch3x3_2a, self.branch3x3_2b = ConvNorm(384, 384, (1, 3)), ConvNorm(384, 384, (3, 1))
        self.branch3x3dbl_1, self.branch3x3dbl_2 = ConvNorm(inputs, 448, 1), ConvNorm(448, 384, 3)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = ConvNorm(384, 384, (1, 3)), ConvNorm(384, 384, (3, 1))
        self.branch_pool = ConvNorm(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        fan = [self.branch3x3_2a(three), self.branch3x3_2b(three)]
        double_fan = [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        return torch.cat([self.branch1x1(x), *fan, *double_fan, self.branch_pool(self.pool(x))], 1)


class InceptionV3(nn.Module):
    """The network whose pooled features FID is defined by: 23,850,960 parameters, the classifier's included.

    It differs from the usual Inception-v3 as TensorFlow's graph of December 2015 does: means do not count padding, the
    last block pools by maxima, and there are 1008 classes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, 3, stride=2, same=False)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, 3, same=False)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, 3)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, 3, same=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = BlockA(192, 32), BlockA(256, 64), BlockA(288, 64)
        self.Mixed_6a = BlockB()
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = (BlockC(width) for width in (128, 160, 160, 192))
        self.Mixed_7a = BlockD()
        self.Mixed_7b, self.Mixed_7c = BlockE(1280), BlockE(2048, last=True)
        self.fc = nn.Linear(NUM_FEATURES, NUM_CLASSES)  # the file has it; features do not need it

    def forward(self, images: Tensor) -> Tensor:
        """Images [b, 3, h, w] with values 0..255 -> features [b, 2048]."""
        x = (resize(images.to(self.fc.weight.dtype), INPUT) - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = halve(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(halve(x))))
        x = self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x))))
        x = self.Mixed_7a(self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x)))))
        return self.Mixed_7c(self.Mixed_7b(x)).mean((2, 3))


def resize(x: Tensor, size: int) -> Tensor:
    """TensorFlow 1's bilinear resize, [b, c, h, w] -> [b, c, size, size]: output pixel i looks at i * h / size.

    No half-pixel centres and no smoothing, as the detector of EDM's evaluation has it.
    """
    h, w = x.shape[-2:]
    return interpolation(h, size).to(x) @ x @ interpolation(w, size).to(x).T


def interpolation(inputs: int, outputs: int) -> Tensor:
    """The matrix [outputs, inputs] of linear interpolation between neighbours; beyond the last pixel it repeats."""
    place = torch.arange(outputs, dtype=torch.float64) * (inputs / outputs)
    left = place.floor().long()
    right, share = (left + 1).clamp(max=inputs - 1), place - left
    rows = torch.arange(outputs)
    matrix = torch.zeros(outputs, inputs, dtype=torch.float64)
    matrix[rows, left] += 1 - share
    matrix[rows, right] += share
    return matrix.float()
