"""The layers of the EDM networks: embeddings of the noise level, dense layers, resampling convolutions."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Resampling = Literal["", "up", "down"]


class PositionalEmbedding(nn.Module):
    """Transformer-style embedding of a scalar: [b] -> [b, dim]; the slowest frequency is exactly 1 / 10000.

    Args:
        dim: size of the embedding, even, at least 4 (2 with `adm`): the slowest and the fastest frequency must be two.
        adm: the form of Dhariwal and Nichol (arXiv:2105.05233): cosines first, and frequencies that stop one step short
            of 1 / 10000.

    Raises:
        ValueError: for a size too small.
    """

    def __init__(self, dim: int, adm: bool = False):
        super().__init__()
        if dim < (2 if adm else 4):
            raise ValueError(f"model_channels: found {dim} features of the noise level, expected 4 or more of them")
        self.dim, self.adm = dim, adm

    def forward(self, t: Tensor) -> Tensor:
        half = self.dim // 2
        steps = half if self.adm else half - 1
        exponent = torch.arange(half, dtype=torch.float32, device=t.device) / steps
        angle = t.float().outer((1 / 10000) ** exponent)  # float32 also under autocast: t runs to 1000
        parts = [angle.cos(), angle.sin()] if self.adm else [angle.sin(), angle.cos()]
        return torch.cat(parts, dim=1).to(t.dtype)


class FourierEmbedding(nn.Module):
    """Random Fourier features of a scalar, [b] -> [b, dim] (Song et al. 2021, arXiv:2011.13456, appendix C).

    Args:
        dim: size of the embedding, even.
        scale: standard deviation of the frequencies, in turns per unit of the scalar.
    """

    freqs: Tensor

    def __init__(self, dim: int, scale: float = 16.0):
        super().__init__()
        self.register_buffer("freqs", scale * torch.randn(dim // 2))

    def forward(self, t: Tensor) -> Tensor:
        angle = t.float().outer(2 * math.pi * self.freqs.float())  # float32: bf16 would round whole turns away
        return torch.cat([angle.sin(), angle.cos()], dim=1).to(t.dtype)


class Linear(nn.Linear):
    """Dense layer with the initialisation of the EDM recipes (Xavier uniform unless said otherwise)."""

    def __init__(self, in_features: int, out_features: int, gain: float = 1.0, bias: bool = True):
        super().__init__(in_features, out_features, bias=bias)
        initialise(self, gain)


class Conv2d(nn.Conv2d):
    """Same-size convolution, optionally on an input upsampled or downsampled 2x.

    Args:
        in_channels, out_channels, kernel: as usual; the kernel is odd.
        resample: "up", "down" or neither.
        gain: of Xavier-uniform weights, with zero biases; None keeps PyTorch's own initialisation.
        taps: a filter for resampling, kept as the buffer `resample_filter`; None = nearest and plain average.
    """

    resample_filter: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, resample: Resampling = "",
                 gain: float | None = 1.0, taps: Sequence[float] | None = None):  # fmt: skip
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2)
        self.resample: Resampling = resample
        self.filtered = bool(resample and taps)
        if resample and taps:
            self.register_buffer("resample_filter", square_filter(taps))
        if gain is not None:
            initialise(self, gain)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(self.resampled(input))

    def resampled(self, x: Tensor) -> Tensor:
        """x [b, c, h, w] at the size this layer works at."""
        if self.filtered:
            return filtered(x, self.resample_filter, self.resample)
        if self.resample == "up":
            return F.interpolate(x, scale_factor=2.0, mode="nearest")
        return F.avg_pool2d(x, 2) if self.resample == "down" else x


class ConvThenDown(Conv2d):
    """Convolution at full size, then the filter at half size: [b, in, h, w] -> [b, out, h / 2, w / 2].

    The zeros beyond the edge belong to the convolution's input, so the filter reads what it makes of them there; the
    bias comes last, or the edge would see less of it.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, taps: Sequence[float]):
        super().__init__(in_channels, out_channels, kernel, resample="down", taps=taps)

    def forward(self, input: Tensor) -> Tensor:
        margin = (self.resample_filter.shape[-1] - 1) // 2
        h = F.conv2d(input, self.weight, padding=self.kernel_size[0] // 2 + margin)
        h = filtered(h, self.resample_filter, "down", padding=0)
        return h if self.bias is None else h + self.bias.to(h.dtype)[:, None, None]


class Resample(nn.Module):
    """Resampling 2x by a filter and nothing else: [b, c, h, w] -> [b, c, 2 h, 2 w] or [b, c, h / 2, w / 2]."""

    resample_filter: Tensor

    def __init__(self, resample: Resampling, taps: Sequence[float]):
        super().__init__()
        self.resample: Resampling = resample
        self.register_buffer("resample_filter", square_filter(taps))

    def forward(self, x: Tensor) -> Tensor:
        return filtered(x, self.resample_filter, self.resample)


def square_filter(taps: Sequence[float]) -> Tensor:
    """The separable filter of these taps, [1, 1, k, k], summing to 1."""
    line = torch.tensor(taps, dtype=torch.float32)
    return (line.outer(line) / line.sum() ** 2)[None, None]


def filtered(x: Tensor, kernel: Tensor, resample: Resampling, padding: int | None = None) -> Tensor:
    """x [b, c, h, w] resampled 2x with a filter [1, 1, k, k], k even, the same for every channel.

    Upsampling puts three zeros beside each sample, hence the factor 4.

    Args:
        x, kernel, resample: as above.
        padding: zeros beyond each edge; None = as many as make the size exactly double or half.
    """
    channels, padding = x.shape[1], (kernel.shape[-1] - 1) // 2 if padding is None else padding
    weight = kernel.to(x.dtype).expand(channels, -1, -1, -1)
    if resample == "up":
        return F.conv_transpose2d(x, 4 * weight, stride=2, padding=padding, groups=channels)
    return F.conv2d(x, weight, stride=2, padding=padding, groups=channels)


def initialise(layer: nn.Linear | nn.Conv2d, gain: float) -> None:
    """Xavier-uniform weights times `gain`, zero bias."""
    nn.init.xavier_uniform_(layer.weight)
    with torch.no_grad():
        layer.weight.mul_(gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def group_norm(channels: int, eps: float = 1e-6) -> nn.GroupNorm:
    """At most 32 groups of at least 4 channels."""
    return nn.GroupNorm(math.gcd(min(32, max(channels // 4, 1)), channels), channels, eps=eps)
