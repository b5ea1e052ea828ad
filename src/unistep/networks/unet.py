"""The EDM U-Net in its DDPM++ form, with an optional pixel-unshuffle stem for small machines.

Architecture: Song et al. 2021 (arXiv:2011.13456, appendix H) as used by Karras et al. 2022 (arXiv:2206.00364,
appendix F.1). Parameter names are those of the published EDM checkpoints.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unistep.networks.blocks import BlockStyle, UNetBlock
from unistep.networks.layers import Conv2d, Linear, PositionalEmbedding, group_norm
from unistep.networks.u_shape import UShape, require_sizes


class UNet(nn.Module):
    """F_x of EDM: (x [b, c, h, w], c_noise [b], one-hot labels [b, label_dim] or None) -> [b, c, h, w].

    Args:
        img_resolution: height and width of x; divisible by patch * 2 ** (levels - 1).
        img_channels: channels of x.
        model_channels: base width; level i has model_channels * channel_mult[i] channels.
        channel_mult: one multiplier per level.
        num_blocks: residual blocks per level in the encoder (the decoder has one more).
        attn_resolutions: level resolutions (after the stem) that get self-attention.
        channel_mult_emb: embedding width as a multiple of model_channels.
        label_dim: number of classes, 0 for an unconditional network.
        dropout: dropout rate inside the blocks, active in train mode only.
        patch: pixel-unshuffle factor of the stem; 1 is the published form, 2 is about three times faster.
        num_heads: attention heads.

    Raises:
        ValueError: if the resolution is not divisible as above, or for sizes that make no network.
    """

    def __init__(self, img_resolution: int, img_channels: int, model_channels: int = 128,
                 channel_mult: Sequence[int] = (2, 2, 2), num_blocks: int = 4, attn_resolutions: Sequence[int] = (16,),
                 channel_mult_emb: int = 4, label_dim: int = 0, dropout: float = 0.0, patch: int = 1,
                 num_heads: int = 1):  # fmt: skip
        super().__init__()
        require_sizes(img_resolution, channel_mult, dropout, patch, model_channels=model_channels,
                      num_blocks=num_blocks, channel_mult_emb=channel_mult_emb, num_heads=num_heads)  # fmt: skip
        self.patch, self.label_dim = patch, label_dim
        emb = model_channels * channel_mult_emb
        self.map_noise = PositionalEmbedding(model_channels)
        self.map_label = Linear(label_dim, model_channels) if label_dim else None
        self.map_layer0, self.map_layer1 = Linear(model_channels, emb), Linear(emb, emb)
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        stem, size = img_channels * patch**2, img_resolution // patch
        widths = [model_channels * m for m in channel_mult]
        shape = UShape(size, model_channels, widths, num_blocks, attn_resolutions)
        self.enc[f"{size}x{size}_conv"] = Conv2d(stem, model_channels, 3)
        style = BlockStyle(num_heads=num_heads, dropout=dropout)
        self.enc.update({stage.name: UNetBlock(stage, emb, style) for stage in shape.encoder()})
        self.dec.update({stage.name: UNetBlock(stage, emb, style) for stage in shape.decoder()})
        self.dec[f"{size}x{size}_aux_norm"] = group_norm(widths[0])
        self.dec[f"{size}x{size}_aux_conv"] = Conv2d(widths[0], stem, 3, gain=1e-5)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        emb = self.embed(c_noise, labels)
        x = F.pixel_unshuffle(x, self.patch) if self.patch > 1 else x
        skips: list[Tensor] = []
        for layer in self.enc.values():
            x = layer(x, emb) if isinstance(layer, UNetBlock) else layer(x)
            skips.append(x)
        for name, layer in self.dec.items():
            if not isinstance(layer, UNetBlock):
                x = F.silu(layer(x)) if name.endswith("norm") else layer(x)
            else:
                x = layer(torch.cat([x, skips.pop()], dim=1) if "_block" in name else x, emb)
        return F.pixel_shuffle(x, self.patch) if self.patch > 1 else x

    @property
    def bottleneck(self) -> nn.Module:
        """The module that the deepest features enter: the decoder's first."""
        return next(iter(self.dec.values()))

    def embed(self, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        """Noise level and class to the vector every block receives: [b, model_channels * channel_mult_emb]."""
        emb = self.map_noise(c_noise)
        if self.map_label is not None and labels is not None:
            emb = emb + self.map_label(labels.to(emb.dtype) * math.sqrt(self.label_dim))
        return F.silu(self.map_layer1(F.silu(self.map_layer0(emb))))
