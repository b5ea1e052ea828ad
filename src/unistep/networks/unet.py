"""The EDM U-Net in its DDPM++ form, with an optional pixel-unshuffle stem for small machines.

Architecture: Song et al. 2021 (arXiv:2011.13456, appendix H) as used by Karras et al. 2022 (arXiv:2206.00364,
appendix F.1). Parameter names are those of the published EDM checkpoints.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PositionalEmbedding(nn.Module):
    """Transformer-style embedding of a scalar: [b] -> [b, dim]; the slowest frequency is exactly 1 / 10000."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def forward(self, t: Tensor) -> Tensor:
        half = self.dim // 2
        exponent = torch.arange(half, dtype=torch.float32, device=t.device) / (half - 1)
        angle = t.float().outer((1 / 10000) ** exponent)
        return torch.cat([angle.sin(), angle.cos()], dim=1).to(t.dtype)


class Linear(nn.Linear):
    """Dense layer with the initialisation of the EDM recipes (Xavier uniform unless said otherwise)."""

    def __init__(self, in_features: int, out_features: int, gain: float = 1.0):
        super().__init__(in_features, out_features)
        initialise(self, gain)


class Conv2d(nn.Conv2d):
    """Same-size convolution, optionally on an input upsampled 2x (nearest) or averaged 2x."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, resample: str = "", gain: float = 1.0):
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2)
        self.resample = resample
        initialise(self, gain)

    def forward(self, input: Tensor) -> Tensor:
        if self.resample == "up":
            input = F.interpolate(input, scale_factor=2.0, mode="nearest")
        if self.resample == "down":
            input = F.avg_pool2d(input, 2)
        return super().forward(input)


def initialise(layer: nn.Linear | nn.Conv2d, gain: float) -> None:
    """Xavier-uniform weights times `gain`, zero bias."""
    nn.init.xavier_uniform_(layer.weight)
    with torch.no_grad():
        layer.weight.mul_(gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def group_norm(channels: int) -> nn.GroupNorm:
    """At most 32 groups of at least 4 channels."""
    return nn.GroupNorm(math.gcd(min(32, max(channels // 4, 1)), channels), channels, eps=1e-6)


class UNetBlock(nn.Module):
    """Residual block: two 3x3 convolutions, the embedding added between them, optional self-attention."""

    def __init__(self, in_channels: int, out_channels: int, emb_channels: int, *, resample: str = "",
                 attention: bool = False, num_heads: int = 1, dropout: float = 0.0):  # fmt: skip
        super().__init__()
        self.dropout = dropout
        self.num_heads = num_heads if attention else 0
        self.norm0 = group_norm(in_channels)
        self.conv0 = Conv2d(in_channels, out_channels, 3, resample=resample)
        self.affine = Linear(emb_channels, out_channels)
        self.norm1 = group_norm(out_channels)
        self.conv1 = Conv2d(out_channels, out_channels, 3, gain=1e-5)
        same = in_channels == out_channels and not resample
        self.skip = None if same else Conv2d(in_channels, out_channels, 1, resample=resample)
        if attention:
            self.norm2 = group_norm(out_channels)
            self.qkv = Conv2d(out_channels, 3 * out_channels, 1, gain=math.sqrt(0.2))
            self.proj = Conv2d(out_channels, out_channels, 1, gain=1e-5)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x)))
        h = h + self.affine(emb)[:, :, None, None]
        h = F.dropout(F.silu(self.norm1(h)), self.dropout, self.training)
        x = (self.conv1(h) + (x if self.skip is None else self.skip(x))) * math.sqrt(0.5)
        return (x + self.attend(x)) * math.sqrt(0.5) if self.num_heads else x

    def attend(self, x: Tensor) -> Tensor:
        """Multi-head self-attention over positions; query, key and value are interleaved channel by channel."""
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm2(x)).reshape(b, self.num_heads, c // self.num_heads, 3, h * w)
        q, k, v = qkv.transpose(2, 4).unbind(3)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(2, 3).reshape(b, c, h, w))


def require_sizes(model_channels: int, channel_mult: Sequence[int], num_blocks: int, channel_mult_emb: int,
                  dropout: float, patch: int, num_heads: int) -> None:  # fmt: skip
    """Refuses what would fail later or mean nothing.

    Raises:
        ValueError: naming the argument.
    """
    sizes = {"model_channels": model_channels, "num_blocks": num_blocks, "channel_mult_emb": channel_mult_emb,
             "patch": patch, "num_heads": num_heads, "channel_mult": min(channel_mult, default=0)}  # fmt: skip
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}: found {size}, expected 1 or more")
    if model_channels % 2:
        raise ValueError(f"model_channels: found {model_channels}, expected an even number: sines and cosines")
    if any(model_channels * m % num_heads for m in channel_mult):
        raise ValueError(f"num_heads: found {num_heads}, expected a divisor of the width of every level")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout: found {dropout}, expected 0 or more and less than 1")


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
        require_sizes(model_channels, channel_mult, num_blocks, channel_mult_emb, dropout, patch, num_heads)
        divisor = patch * 2 ** (len(channel_mult) - 1)
        if img_resolution % divisor:
            raise ValueError(
                f"img_resolution: found {img_resolution}, expected a multiple of {divisor} "
                f"(patch {patch}, {len(channel_mult)} levels); pad the images or use fewer levels"
            )
        self.patch, self.label_dim = patch, label_dim
        emb = model_channels * channel_mult_emb
        self.map_noise = PositionalEmbedding(model_channels)
        self.map_label = Linear(label_dim, model_channels) if label_dim else None
        self.map_layer0, self.map_layer1 = Linear(model_channels, emb), Linear(emb, emb)
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()

        def block(cin: int, cout: int, attention: bool = False, resample: str = "") -> UNetBlock:
            return UNetBlock(
                cin, cout, emb, attention=attention, resample=resample, dropout=dropout, num_heads=num_heads
            )

        stem, widths = img_channels * patch**2, [model_channels * m for m in channel_mult]
        sizes = [img_resolution // patch // 2**level for level in range(len(widths))]
        channels, skips = model_channels, [model_channels]
        self.enc[f"{sizes[0]}x{sizes[0]}_conv"] = Conv2d(stem, channels, 3)
        for level, (size, width) in enumerate(zip(sizes, widths, strict=True)):
            if level:
                self.enc[f"{size}x{size}_down"] = block(channels, channels, resample="down")
                skips.append(channels)
            for i in range(num_blocks):
                self.enc[f"{size}x{size}_block{i}"] = block(channels, width, size in attn_resolutions)
                channels = width
                skips.append(channels)
        for level, (size, width) in reversed(list(enumerate(zip(sizes, widths, strict=True)))):
            if level == len(widths) - 1:
                self.dec[f"{size}x{size}_in0"] = block(channels, channels, attention=True)
                self.dec[f"{size}x{size}_in1"] = block(channels, channels)
            else:
                self.dec[f"{size}x{size}_up"] = block(channels, channels, resample="up")
            for i in range(num_blocks + 1):
                attention = i == num_blocks and size in attn_resolutions
                self.dec[f"{size}x{size}_block{i}"] = block(channels + skips.pop(), width, attention)
                channels = width
        self.dec[f"{sizes[0]}x{sizes[0]}_aux_norm"] = group_norm(channels)
        self.dec[f"{sizes[0]}x{sizes[0]}_aux_conv"] = Conv2d(channels, stem, 3, gain=1e-5)

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

    def embed(self, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        """Noise level and class to the vector every block receives: [b, model_channels * channel_mult_emb]."""
        emb = self.map_noise(c_noise)
        if self.map_label is not None and labels is not None:
            emb = emb + self.map_label(labels.to(emb.dtype) * math.sqrt(self.label_dim))
        return F.silu(self.map_layer1(F.silu(self.map_layer0(emb))))
