"""The U-Nets DDPM++ and NCSN++ as EDM publishes them, with parameter names and shapes of its checkpoints.

Architecture: Song et al. 2021 (arXiv:2011.13456, appendix H) as trained by Karras et al. 2022 (arXiv:2206.00364,
appendix F.1). DDPM++ is the default; NCSN++ has `embedding_type` fourier, `encoder_type` residual,
`channel_mult_noise` 2 and `resample_filter` [1, 3, 3, 1].
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unistep.networks.blocks import BlockStyle, UNetBlock
from unistep.networks.layers import (
    Conv2d,
    ConvThenDown,
    FourierEmbedding,
    Linear,
    PositionalEmbedding,
    Resample,
    group_norm,
)
from unistep.networks.u_shape import UShape, require_sizes


class SongUNet(nn.Module):
    """F_x: (x [b, c, h, w], c_noise [b], one-hot labels [b, label_dim] or None) -> [b, out_channels, h, w].

    Args:
        img_resolution: height and width of x, divisible by 2 ** (levels - 1).
        img_channels: channels of x.
        out_channels: channels of the output; None = those of x (iDDPM's networks have twice as many).
        model_channels: base width; level i has model_channels * channel_mult[i] channels.
        channel_mult: one multiplier per level.
        num_blocks: residual blocks per level of the encoder (the decoder has one more).
        attn_resolutions: sizes of the levels with self-attention, one head.
        channel_mult_emb: width of the embedding as a multiple of model_channels.
        channel_mult_noise: width of the noise level's features as a multiple of model_channels.
        embedding_type: what the noise level becomes, sines of fixed or of random frequencies.
        encoder_type: whether the image enters at the finest level only, at each level beside the features (`skip`), or
            added to a pyramid of them (`residual`).
        decoder_type: whether the image leaves at the finest level only, or is summed up over the levels (`skip`).
        resample_filter: an even number of taps.
        label_dim: number of classes, 0 for an unconditional network; no label is the zero row.
        augment_dim: width of the augmentation labels that EDM trains with. Their layer is in its checkpoints and sees
            zeros here: no augmentation.
        dropout: rate inside the blocks, active in train mode only.

    Raises:
        ValueError: for sizes that make no network.
    """

    def __init__(self, img_resolution: int, img_channels: int, model_channels: int = 128,
                 channel_mult: Sequence[int] = (2, 2, 2), num_blocks: int = 4, attn_resolutions: Sequence[int] = (16,),
                 channel_mult_emb: int = 4, channel_mult_noise: int = 1,
                 embedding_type: Literal["positional", "fourier"] = "positional",
                 encoder_type: Literal["standard", "skip", "residual"] = "standard",
                 decoder_type: Literal["standard", "skip"] = "standard", resample_filter: Sequence[int] = (1, 1),
                 label_dim: int = 0, augment_dim: int = 0, dropout: float = 0.0,
                 out_channels: int | None = None):  # fmt: skip
        super().__init__()
        require_sizes(img_resolution, channel_mult, dropout, model_channels=model_channels, num_blocks=num_blocks,
                      channel_mult_emb=channel_mult_emb, channel_mult_noise=channel_mult_noise)  # fmt: skip
        if not resample_filter or len(resample_filter) % 2:
            raise ValueError(f"resample_filter: found {len(resample_filter)} taps, expected an even number of them")
        self.label_dim, self.augment_dim = label_dim, augment_dim
        noise, emb = model_channels * channel_mult_noise, model_channels * channel_mult_emb
        self.map_noise = (PositionalEmbedding if embedding_type == "positional" else FourierEmbedding)(noise)
        self.map_label = Linear(label_dim, noise) if label_dim else None
        self.map_augment = Linear(augment_dim, noise, bias=False) if augment_dim else None
        self.map_layer0, self.map_layer1 = Linear(noise, emb), Linear(emb, emb)
        taps = tuple(resample_filter)
        widths = [model_channels * m for m in channel_mult]
        shape = UShape(img_resolution, model_channels, widths, num_blocks, attn_resolutions)
        style = BlockStyle(dropout=dropout, taps=taps)
        self.enc = encoder(shape, emb, style, img_channels, encoder_type)
        self.dec = decoder(shape, emb, style, out_channels or img_channels, decoder_type)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        emb = self.embed(c_noise, labels)
        return self.decode(self.encode(x, emb), emb)

    @property
    def bottleneck(self) -> nn.Module:
        """The module that the deepest features enter: the decoder's first."""
        return next(iter(self.dec.values()))

    def embed(self, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        """Noise level and class to the vector every block receives: [b, model_channels * channel_mult_emb]."""
        emb = self.map_noise(c_noise)
        if self.map_label is not None:
            rows = emb.new_zeros(len(emb), self.label_dim) if labels is None else labels.to(emb.dtype)
            emb = emb + self.map_label(rows * math.sqrt(self.label_dim))
        if self.map_augment is not None:  # zeros, not nothing: every parameter has a gradient, as several ranks need
            emb = emb + self.map_augment(emb.new_zeros(len(emb), self.augment_dim))
        return F.silu(self.map_layer1(F.silu(self.map_layer0(emb))))

    def encode(self, x: Tensor, emb: Tensor) -> list[Tensor]:
        """What the decoder will ask for, finest first; the last is where it starts."""
        skips, aux = [x], x
        for name, layer in self.enc.items():
            if isinstance(layer, UNetBlock):
                skips.append(layer(skips[-1], emb))
            elif name.endswith("aux_down"):
                aux = layer(aux)
            elif name.endswith("aux_skip"):
                skips[-1] = skips[-1] + layer(aux)
            elif name.endswith("aux_residual"):
                skips[-1] = aux = (skips[-1] + layer(aux)) * math.sqrt(0.5)
            else:
                skips[-1] = layer(x)
        return skips

    def decode(self, skips: list[Tensor], emb: Tensor) -> Tensor:
        """The network's output [b, out_channels, h, w] from what the encoder left."""
        x, h, image = skips[-1], skips[-1], skips[-1].new_zeros(())
        for name, layer in self.dec.items():
            if isinstance(layer, UNetBlock):
                x = layer(torch.cat([x, skips.pop()], dim=1) if "_block" in name else x, emb)
            elif name.endswith("aux_up"):
                image = layer(image)
            elif name.endswith("aux_norm"):
                h = F.silu(layer(x))
            else:
                image = image + layer(h)
        return image


def encoder(shape: UShape, emb_channels: int, style: BlockStyle, img_channels: int, kind: str) -> nn.ModuleDict:
    """The encoder's layers in order of use; `kind` as in `encoder_type`."""
    enc, aux = nn.ModuleDict(), img_channels
    enc[f"{shape.level_name(0)}_conv"] = Conv2d(img_channels, shape.stem, 3)
    for stage in shape.encoder():
        enc[stage.name] = UNetBlock(stage, emb_channels, style)
        level = stage.name.split("_")[0]
        if stage.resample and kind == "skip":
            enc[f"{level}_aux_down"] = Resample("down", style.taps or ())
            enc[f"{level}_aux_skip"] = Conv2d(aux, stage.out_channels, 1)
        if stage.resample and kind == "residual":
            enc[f"{level}_aux_residual"] = ConvThenDown(aux, stage.out_channels, 3, style.taps or ())
            aux = stage.out_channels
    return enc


def decoder(shape: UShape, emb_channels: int, style: BlockStyle, out_channels: int, kind: str) -> nn.ModuleDict:
    """The decoder's layers in order of use; `kind` as in `decoder_type`."""
    dec, finest = nn.ModuleDict(), shape.level_name(0)
    bottom = shape.level_name(len(shape.widths) - 1)
    for stage in shape.decoder():
        dec[stage.name] = UNetBlock(stage, emb_channels, style)
        level = stage.name.split("_")[0]
        if not stage.name.endswith(f"_block{shape.num_blocks}") or (kind == "standard" and level != finest):
            continue
        if kind == "skip" and level != bottom:
            dec[f"{level}_aux_up"] = Resample("up", style.taps or ())
        dec[f"{level}_aux_norm"] = group_norm(stage.out_channels, style.eps)
        dec[f"{level}_aux_conv"] = Conv2d(stage.out_channels, out_channels, 3, gain=1e-5)
    return dec
