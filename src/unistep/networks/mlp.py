"""A small residual MLP denoiser network for points."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MLP(nn.Module):
    """F_x for points: (x [b, dim], c_noise [b], one-hot labels [b, label_dim] or None) -> [b, dim].

    Args:
        dim: coordinates of a point.
        width: hidden units.
        num_blocks: residual blocks of two layers.
        label_dim: number of classes, 0 for an unconditional network.
    """

    def __init__(self, dim: int = 2, width: int = 128, num_blocks: int = 3, label_dim: int = 0):
        super().__init__()
        if min(dim, width, num_blocks) < 1:
            raise ValueError(f"dim, width, num_blocks: found {dim}, {width}, {num_blocks}, expected 1 or more each")
        self.register_buffer("freqs", torch.exp(torch.linspace(math.log(0.5), math.log(32.0), 16)))
        self.freqs: Tensor
        self.stem = nn.Linear(dim + 2 * len(self.freqs), width)
        self.label = nn.Linear(label_dim, width, bias=False) if label_dim else None
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(num_blocks)
        )
        self.head = nn.Linear(width, dim)
        nn.init.zeros_(self.head.bias)

    @property
    def bottleneck(self) -> nn.Module:
        """The module that the deepest features enter: the last block."""
        return self.blocks[-1]

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        angle = c_noise.to(x.dtype)[:, None] * self.freqs.to(x.dtype)
        h = self.stem(torch.cat([x, angle.sin(), angle.cos()], dim=1))
        if self.label is not None and labels is not None:
            h = h + self.label(labels.to(h.dtype))
        for block in self.blocks:
            h = h + block(h)
        return self.head(F.silu(h))
