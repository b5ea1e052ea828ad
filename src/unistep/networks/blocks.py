"""The residual block of DDPM++, NCSN++ and ADM, with what tells these families apart."""

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from unistep.networks.layers import Conv2d, Linear, Resample, group_norm
from unistep.networks.u_shape import Stage, whole_heads


@dataclass(frozen=True)
class BlockStyle:
    """What tells one family's residual blocks from another's (Karras et al. 2022, arXiv:2206.00364, appendix F).

    Attributes:
        num_heads: attention heads, unless `channels_per_head` gives their width instead.
        channels_per_head: width of an attention head, 0 where `num_heads` counts.
        dropout: rate, active in train mode only.
        taps: the resampling filter; None = nearest and plain average.
        scale_and_shift: whether the embedding scales and shifts the normalised features, or is added before the norm.
        skip_scale: factor on every sum of two branches; sqrt(0.5) keeps their variance.
        skip_convolution: whether a resampled shortcut of unchanged width is convolved too.
        eps: of the norms.
        xavier: Xavier-uniform weights with nearly silent last layers; else PyTorch's own with silent ones.
    """

    num_heads: int = 1
    channels_per_head: int = 0
    dropout: float = 0.0
    taps: tuple[float, ...] | None = None
    scale_and_shift: bool = False
    skip_scale: float = math.sqrt(0.5)
    skip_convolution: bool = True
    eps: float = 1e-6
    xavier: bool = True

    def heads(self, channels: int) -> int:
        """Attention heads of a block of this width."""
        return whole_heads(channels, self.channels_per_head) if self.channels_per_head else self.num_heads


class UNetBlock(nn.Module):
    """Residual block: two 3x3 convolutions, the embedding between them, optional self-attention.

    Args:
        stage: its place in the U: widths, resampling, attention.
        emb_channels: width of the embedding.
        style: the family.
    """

    def __init__(self, stage: Stage, emb_channels: int, style: BlockStyle):
        super().__init__()
        in_channels, out_channels, resample = stage.in_channels, stage.out_channels, stage.resample
        self.style, self.num_heads = style, style.heads(out_channels) if stage.attention else 0
        taps, plain, last = style.taps, 1.0 if style.xavier else None, 1e-5 if style.xavier else 0.0
        affine = Linear if style.xavier else nn.Linear
        self.norm0 = group_norm(in_channels, style.eps)
        self.conv0 = Conv2d(in_channels, out_channels, 3, resample=resample, gain=plain, taps=taps)
        self.affine = affine(emb_channels, out_channels * (2 if style.scale_and_shift else 1))
        self.norm1 = group_norm(out_channels, style.eps)
        self.conv1 = Conv2d(out_channels, out_channels, 3, gain=last)
        self.skip: nn.Module | None = None
        if in_channels != out_channels or (resample and style.skip_convolution):
            self.skip = Conv2d(in_channels, out_channels, 1, resample=resample, gain=plain, taps=taps)
        elif resample and taps:
            self.skip = Resample(resample, taps)
        if stage.attention:
            self.norm2 = group_norm(out_channels, style.eps)
            self.qkv = Conv2d(out_channels, 3 * out_channels, 1, gain=math.sqrt(0.2) if style.xavier else None)
            self.proj = Conv2d(out_channels, out_channels, 1, gain=last)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x)))
        h = F.dropout(F.silu(self.modulated(h, emb)), self.style.dropout, self.training)
        x = (self.conv1(h) + (x if self.skip is None else self.skip(x))) * self.style.skip_scale
        return (x + self.attend(x)) * self.style.skip_scale if self.num_heads else x

    def modulated(self, h: Tensor, emb: Tensor) -> Tensor:
        """The normalised features [b, c, h, w] as the embedding [b, emb_channels] wants them."""
        affine = self.affine(emb)[:, :, None, None]
        if not self.style.scale_and_shift:
            return self.norm1(h + affine)
        scale, shift = affine.chunk(2, dim=1)
        return shift + self.norm1(h) * (scale + 1)

    def attend(self, x: Tensor) -> Tensor:
        """Multi-head self-attention over positions; query, key and value are interleaved channel by channel."""
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm2(x)).reshape(b, self.num_heads, c // self.num_heads, 3, h * w)
        q, k, v = qkv.transpose(2, 4).unbind(3)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(2, 3).reshape(b, c, h, w))
