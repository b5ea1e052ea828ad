"""The magnitude-preserving U-Net of EDM2, for pixels and for latents, with its checkpoints' parameter names.

Karras et al. 2023 (arXiv:2312.02696), configuration G: section 2 and appendix B.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unistep.networks.magnitude_preserving import MPFourier, MPLayer, mp_cat, mp_silu, mp_sum, normalize
from unistep.networks.u_shape import Stage, UShape, require_sizes, whole_heads


@dataclass(frozen=True)
class Balances:
    """How much of each sum or concatenation is the second branch, and where activations are clipped.

    Attributes:
        label: class against noise level in the embedding.
        skip: encoder against decoder in concatenations.
        residual: residual branch against the block's input.
        attention: attention against its input.
        clip: largest magnitude of a block's output.
    """

    label: float = 0.5
    skip: float = 0.5
    residual: float = 0.3
    attention: float = 0.3
    clip: float = 256.0


class EDM2Block(nn.Module):
    """Residual block: the embedding scales the features between two 3x3 convolutions; cosine attention if asked.

    Args:
        stage: its place in the U.
        emb_channels: width of the embedding.
        encodes: encoder blocks normalise their input pixel by pixel and change width first, decoder blocks last.
        balances: weights of sums.
        dropout: rate, active in train mode only.
        channels_per_head: width of an attention head.
    """

    def __init__(self, stage: Stage, emb_channels: int, encodes: bool, balances: Balances, dropout: float,
                 channels_per_head: int):  # fmt: skip
        super().__init__()
        self.encodes, self.balances, self.dropout, self.resample = encodes, balances, dropout, stage.resample
        width = stage.out_channels
        self.num_heads = whole_heads(width, channels_per_head) if stage.attention else 0
        self.emb_gain = nn.Parameter(torch.zeros(()))
        self.conv_res0 = MPLayer(width if encodes else stage.in_channels, width, 3)
        self.emb_linear = MPLayer(emb_channels, width)
        self.conv_res1 = MPLayer(width, width, 3)
        self.conv_skip = MPLayer(stage.in_channels, width, 1) if stage.in_channels != width else None
        if self.num_heads:
            self.attn_qkv = MPLayer(width, 3 * width, 1)
            self.attn_proj = MPLayer(width, width, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        x = resampled(x, self.resample)
        if self.encodes:
            x = normalize(x if self.conv_skip is None else self.conv_skip(x), dim=1)
        y = self.conv_res0(mp_silu(x))
        scale = self.emb_linear(emb, gain=self.emb_gain) + 1
        y = F.dropout(mp_silu(y * scale[:, :, None, None].to(y.dtype)), self.dropout, self.training)
        y = self.conv_res1(y)
        if not self.encodes and self.conv_skip is not None:
            x = self.conv_skip(x)
        x = mp_sum(x, y, self.balances.residual)
        if self.num_heads:
            x = mp_sum(x, self.attend(x), self.balances.attention)
        return x.clamp(-self.balances.clip, self.balances.clip)

    def attend(self, x: Tensor) -> Tensor:
        """Self-attention with queries, keys and values of unit length, interleaved channel by channel."""
        b, c, h, w = x.shape
        qkv = self.attn_qkv(x).reshape(b, self.num_heads, c // self.num_heads, 3, h * w)
        q, k, v = normalize(qkv, dim=2).transpose(2, 4).unbind(3)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.attn_proj(out.transpose(2, 3).reshape(b, c, h, w))


def resampled(x: Tensor, resample: str) -> Tensor:
    """x [b, c, h, w] averaged or repeated 2x, or as it is."""
    if resample == "down":
        return F.avg_pool2d(x, 2)
    return F.interpolate(x, scale_factor=2.0, mode="nearest") if resample == "up" else x


class EDM2UNet(nn.Module):
    """F_x: (x [b, c, h, w], c_noise [b], one-hot labels [b, label_dim] or None) -> [b, c, h, w].

    Args:
        img_resolution: height and width of x, divisible by 2 ** (levels - 1).
        img_channels: channels of x: 3 for pixels, 4 for latents.
        label_dim: number of classes, 0 for an unconditional network; no label is the zero row.
        model_channels: base width; level i has model_channels * channel_mult[i] channels.
        channel_mult: one multiplier per level.
        channel_mult_noise: width of the noise level's features as a multiple of model_channels; None = the first of
            `channel_mult`.
        channel_mult_emb: width of the embedding as a multiple of model_channels; None = the largest of `channel_mult`.
        num_blocks: residual blocks per level of the encoder (the decoder has one more).
        attn_resolutions: sizes of the levels with self-attention.
        label_balance, concat_balance, res_balance, attn_balance, clip_act: see `Balances`.
        dropout: rate inside the blocks, active in train mode only.
        channels_per_head: width of an attention head.

    Raises:
        ValueError: for sizes that make no network.
    """

    def __init__(self, img_resolution: int, img_channels: int, label_dim: int = 0, model_channels: int = 192,
                 channel_mult: Sequence[int] = (1, 2, 3, 4), channel_mult_noise: int | None = None,
                 channel_mult_emb: int | None = None, num_blocks: int = 3, attn_resolutions: Sequence[int] = (16, 8),
                 label_balance: float = 0.5, concat_balance: float = 0.5, res_balance: float = 0.3,
                 attn_balance: float = 0.3, clip_act: float = 256.0, dropout: float = 0.0,
                 channels_per_head: int = 64):  # fmt: skip
        super().__init__()
        require_sizes(img_resolution, channel_mult, dropout, model_channels=model_channels, num_blocks=num_blocks,
                      channels_per_head=channels_per_head)  # fmt: skip
        self.label_dim, self.balances = label_dim, Balances(label_balance, concat_balance, res_balance, attn_balance,
                                                            clip_act)  # fmt: skip
        widths = [model_channels * m for m in channel_mult]
        noise, emb = model_channels * (channel_mult_noise or channel_mult[0]), max(widths)
        emb = model_channels * channel_mult_emb if channel_mult_emb else emb
        self.out_gain = nn.Parameter(torch.zeros(()))
        self.emb_fourier = MPFourier(noise)
        self.emb_noise = MPLayer(noise, emb)
        self.emb_label = MPLayer(label_dim, emb) if label_dim else None
        shape = UShape(img_resolution, widths[0], widths, num_blocks, attn_resolutions, attend_often=True)

        def block(stage: Stage, encodes: bool) -> EDM2Block:
            return EDM2Block(stage, emb, encodes, self.balances, dropout, channels_per_head)

        self.enc = nn.ModuleDict({f"{shape.level_name(0)}_conv": MPLayer(img_channels + 1, widths[0], 3)})
        self.enc.update({stage.name: block(stage, encodes=True) for stage in shape.encoder()})
        self.dec = nn.ModuleDict({stage.name: block(stage, encodes=False) for stage in shape.decoder()})
        self.out_conv = MPLayer(widths[0], img_channels, 3)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        emb, skips = self.embed(c_noise, labels), []
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)  # a channel of ones stands in for biases
        for layer in self.enc.values():
            x = layer(x, emb) if isinstance(layer, EDM2Block) else layer(x)
            skips.append(x)
        for name, layer in self.dec.items():
            x = layer(mp_cat(x, skips.pop(), self.balances.skip) if "_block" in name else x, emb)
        return self.out_conv(x, gain=self.out_gain)

    @property
    def bottleneck(self) -> nn.Module:
        """The module that the deepest features enter: the decoder's first."""
        return next(iter(self.dec.values()))

    def embed(self, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        """Noise level and class to the vector every block receives: [b, emb_channels]."""
        emb = self.emb_noise(self.emb_fourier(c_noise))
        if self.emb_label is not None:
            rows = emb.new_zeros(len(emb), self.label_dim) if labels is None else labels.to(emb.dtype)
            emb = mp_sum(emb, self.emb_label(rows * math.sqrt(self.label_dim)), self.balances.label)
        return mp_silu(emb)
