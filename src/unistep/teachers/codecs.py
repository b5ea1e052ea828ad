"""Codecs: model space to 8-bit images and back; points need none."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unistep.io.arguments import require_choice

if TYPE_CHECKING:
    from unistep.teachers.diffusers.codec import VAECodec


CODECS = ("pixels", "points", "vae")
"""The types that a configuration can name."""


@dataclass(frozen=True)
class PixelCodec:
    """Pixels in [-1, 1] <-> uint8, the rounding of EDM's evaluation protocol."""

    def encode(self, images: Tensor) -> Tensor:
        """uint8 [b, c, h, w] -> float32 in [-1, 1]."""
        return images.float() / 127.5 - 1

    def decode(self, x: Tensor) -> Tensor:
        """[b, c, h, w], clamped to [-1, 1] and rounded to uint8: every image is judged in this form."""
        return (x.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)

    def config(self) -> dict[str, Any]:
        return {"type": "pixels"}


@dataclass(frozen=True)
class PointCodec:
    """Points are what they are."""

    def encode(self, images: Tensor) -> Tensor:
        """[b, dim] -> float32."""
        return images.float()

    def decode(self, x: Tensor) -> Tensor:
        """[b, dim] -> float32."""
        return x.float()

    def config(self) -> dict[str, Any]:
        return {"type": "points"}


def codec_networks(codec: object) -> list[nn.Module]:
    """The networks that a codec has as attributes, such as a VAE, and those of a codec within."""
    parts = getattr(codec, "__dict__", {})
    inner = codec_networks(parts["codec"]) if "codec" in parts else []
    return [part for part in parts.values() if isinstance(part, nn.Module)] + inner


def move_codec(codec: object, device: torch.device) -> None:
    """Brings a codec's networks to the device on which samples will be made; encoding and decoding move nothing."""
    for network in codec_networks(codec):
        network.to(device)


def codec_from_config(config: dict[str, Any]) -> "PixelCodec | PointCodec | VAECodec":
    """Rebuilds a codec from `config()`.

    Raises:
        UserError: for an unknown type, or a VAE that is not where it was.
    """
    kind = require_choice(config.get("type"), CODECS, "codec.type")
    if kind == "vae":
        from unistep.teachers.diffusers.codec import load_codec  # which stands on this file

        return load_codec(config)
    return PixelCodec() if kind == "pixels" else PointCodec()
