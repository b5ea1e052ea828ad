"""Magnitude-preserving operations and layers: what comes in with unit variance goes out with unit variance.

Karras et al. 2023 (arXiv:2312.02696), section 2 and appendix B: all learned weights are normalised where they are
used, sums, concatenations and nonlinearities are rescaled by fixed factors, and no layer has a bias.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def normalize(x: Tensor, dim: int | None = None, eps: float = 1e-4) -> Tensor:
    """x scaled to root mean square 1, up to eps (Algorithm 1).

    Args:
        x: any tensor.
        dim: one dimension to normalise over; None = all but the first.
        eps: added to the root mean square.
    """
    dims = [dim] if dim is not None else list(range(1, x.ndim))
    rms = x.float().square().mean(dim=dims, keepdim=True).sqrt()
    return x / (rms + eps).to(x.dtype)


def mp_silu(x: Tensor) -> Tensor:
    """SiLU over 0.596, the root mean square of SiLU of a unit Gaussian (Eq. 81)."""
    return F.silu(x) / 0.596


def mp_sum(a: Tensor, b: Tensor, t: float) -> Tensor:
    """(1 - t) a + t b at unit variance, for uncorrelated a and b (Eq. 88)."""
    return a.lerp(b.to(a.dtype), t) / math.hypot(1 - t, t)


def mp_cat(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Channels of a and b, weighted so that their shares of the variance are as 1 - t to t in amplitude (Eq. 103)."""
    N_a, N_b = a.shape[1], b.shape[1]
    C = math.sqrt(N_a + N_b) / math.hypot(1 - t, t)
    return torch.cat([a * (C * (1 - t) / math.sqrt(N_a)), b.to(a.dtype) * (C * t / math.sqrt(N_b))], dim=1)


class MPFourier(nn.Module):
    """Random Fourier features of a scalar at unit variance, [b] -> float32 [b, dim] (Eq. 75)."""

    freqs: Tensor
    phases: Tensor

    def __init__(self, dim: int):
        super().__init__()
        self.register_buffer("freqs", 2 * math.pi * torch.randn(dim))
        self.register_buffer("phases", 2 * math.pi * torch.rand(dim))

    def forward(self, t: Tensor) -> Tensor:
        angle = t.float().outer(self.freqs.float()) + self.phases.float()
        return angle.cos() * math.sqrt(2)


class MPLayer(nn.Module):
    """Dense layer (kernel 0) or same-size convolution whose weight vectors have unit length (Algorithm 1).

    Where the weights learn, in train mode or with gradients on, the stored ones are normalised too, at each use
    ("forced weight normalization"), so that their length cannot change and with it the pace of learning.

    Args:
        in_channels, out_channels: width of input and output.
        kernel: size of the convolution, odd; 0 = dense.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 0):
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, *[kernel] * 2 if kernel else ()))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        if self.training or (self.weight.requires_grad and torch.is_grad_enabled()):
            self.normalize_weight()
        weight = normalize(self.weight.float()) * (gain / math.sqrt(self.weight[0].numel()))
        weight = weight.to(x.dtype)
        return F.conv2d(x, weight, padding=self.kernel // 2) if self.kernel else F.linear(x, weight)

    def normalize_weight(self) -> None:
        """Brings the stored weight vectors to unit length, up to rounding the same function as before."""
        # not the weight itself: a second forward pass would make what the first one keeps for its backward pass invalid
        self.weight.data.copy_(normalize(self.weight.data))
