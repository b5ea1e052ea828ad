"""Codecs: model space to 8-bit images and back; points need none."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unistep.errors import UserError
from unistep.io.arguments import require_arguments, require_choice

if TYPE_CHECKING:
    from unistep.teachers.diffusers.codec import VAECodec


CODECS = ("pixels", "points", "vae")
"""The types that a configuration can name."""


@dataclass(frozen=True)
class PixelCodec:
    """Pixels from `low` to `high` (by default [-1, 1]) <-> uint8, the rounding of EDM's evaluation protocol.

    Raises:
        UserError: unless both are finite and low < high.
    """

    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise UserError(
                f"value_range: found {self.low} to {self.high}, expected finite numbers, the lower one first"
            )

    def encode(self, images: Tensor) -> Tensor:
        """uint8 [b, c, h, w] -> float32 in [low, high]."""
        signed = images.float() / 127.5 - 1
        return signed if self.is_signed else self.low + (signed + 1) * ((self.high - self.low) / 2)

    def decode(self, x: Tensor) -> Tensor:
        """[b, c, h, w], clamped to [low, high] and rounded to uint8: every image is judged in this form."""
        return (self.signed(x.float()) * 127.5 + 128).clamp(0, 255).to(torch.uint8)

    def signed(self, x: Tensor) -> Tensor:
        """Pixels from low..high brought to -1..1, unclamped, with gradients; networks that see images want them so."""
        return x if self.is_signed else (x - self.low) * (2 / (self.high - self.low)) - 1

    @property
    def is_signed(self) -> bool:
        """Whether the range is [-1, 1]."""
        return (self.low, self.high) == (-1, 1)

    def config(self) -> dict[str, Any]:
        return {"type": "pixels"} if self.is_signed else {"type": "pixels", "low": self.low, "high": self.high}


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
    if kind == "points":
        return PointCodec()
    values = {key: config[key] for key in ("low", "high") if key in config}
    require_arguments(PixelCodec, values, "codec")
    return PixelCodec(**values)
