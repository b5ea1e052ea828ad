"""The U-Net ADM as EDM publishes it, with parameter names and shapes of its checkpoints.

Architecture: Dhariwal and Nichol 2021 (arXiv:2105.05233, section 3) as trained by Karras et al. 2022
(arXiv:2206.00364, appendix F.2).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unistep.networks.blocks import BlockStyle, UNetBlock
from unistep.networks.layers import Conv2d, Linear, PositionalEmbedding, group_norm
from unistep.networks.u_shape import UShape, require_sizes


class DhariwalUNet(nn.Module):
    """F_x: (x [b, c, h, w], c_noise [b], one-hot labels [b, label_dim] or None) -> [b, out_channels, h, w].

    Args:
        img_resolution: height and width of x, divisible by 2 ** (levels - 1).
        img_channels: channels of x.
        out_channels: channels of the output; None = those of x (iDDPM's networks have twice as many).
        model_channels: base width; level i has model_channels * channel_mult[i] channels.
        channel_mult: one multiplier per level.
        num_blocks: residual blocks per level of the encoder (the decoder has one more).
        attn_resolutions: sizes of the levels with self-attention, in heads of 64 channels.
        channel_mult_emb: width of the embedding as a multiple of model_channels.
        label_dim: number of classes, 0 for an unconditional network; no label is the zero row.
        augment_dim: width of the augmentation labels, 0 in all published ADM networks; their layer sees zeros.
        dropout: rate inside the blocks, active in train mode only.

    Raises:
        ValueError: for sizes that make no network.
    """

    def __init__(self, img_resolution: int, img_channels: int, model_channels: int = 192,
                 channel_mult: Sequence[int] = (1, 2, 3, 4), num_blocks: int = 3,
                 attn_resolutions: Sequence[int] = (32, 16, 8), channel_mult_emb: int = 4, label_dim: int = 0,
                 augment_dim: int = 0, dropout: float = 0.0, out_channels: int | None = None):  # fmt: skip
        super().__init__()
        require_sizes(img_resolution, channel_mult, dropout, model_channels=model_channels, num_blocks=num_blocks,
                      channel_mult_emb=channel_mult_emb)  # fmt: skip
        self.augment_dim = augment_dim
        emb, widths = model_channels * channel_mult_emb, [model_channels * m for m in channel_mult]
        self.map_noise = PositionalEmbedding(model_channels, adm=True)
        self.map_augment = Linear(augment_dim, model_channels, bias=False) if augment_dim else None
        self.map_layer0, self.map_layer1 = nn.Linear(model_channels, emb), nn.Linear(emb, emb)
        self.map_label = nn.Linear(label_dim, emb, bias=False) if label_dim else None
        if self.map_label is not None:
            nn.init.normal_(self.map_label.weight)  # the row of a class has unit variance
        shape = UShape(img_resolution, widths[0], widths, num_blocks, attn_resolutions, attend_often=True)
        style = BlockStyle(channels_per_head=64, dropout=dropout, taps=(1, 1), scale_and_shift=True, skip_scale=1.0,
                           skip_convolution=False, eps=1e-5, xavier=False)  # fmt: skip
        self.enc = nn.ModuleDict({f"{shape.level_name(0)}_conv": Conv2d(img_channels, widths[0], 3, gain=None)})
        self.enc.update({stage.name: UNetBlock(stage, emb, style) for stage in shape.encoder()})
        self.dec = nn.ModuleDict({stage.name: UNetBlock(stage, emb, style) for stage in shape.decoder()})
        self.out_norm = group_norm(widths[0], style.eps)
        self.out_conv = Conv2d(widths[0], out_channels or img_channels, 3, gain=0.0)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        emb, skips = self.embed(c_noise, labels), []
        for layer in self.enc.values():
            x = layer(x, emb) if isinstance(layer, UNetBlock) else layer(x)
            skips.append(x)
        for name, layer in self.dec.items():
            x = layer(torch.cat([x, skips.pop()], dim=1) if "_block" in name else x, emb)
        return self.out_conv(F.silu(self.out_norm(x)))

    @property
    def bottleneck(self) -> nn.Module:
        """The module that the deepest features enter: the decoder's first."""
        return next(iter(self.dec.values()))

    def embed(self, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        """Noise level and class to the vector every block receives: [b, model_channels * channel_mult_emb]."""
        emb = self.map_noise(c_noise)
        if self.map_augment is not None:  # zeros, not nothing: every parameter has a gradient, as several ranks need
            emb = emb + self.map_augment(emb.new_zeros(len(emb), self.augment_dim))
        emb = self.map_layer1(F.silu(self.map_layer0(emb)))
        if self.map_label is not None and labels is not None:
            emb = emb + self.map_label(labels.to(emb.dtype))
        return F.silu(emb)
