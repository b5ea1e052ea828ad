"""A pipeline's VAE as a codec: latents in the scale the denoiser knows <-> 8-bit images, videos as strips of frames."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unistep.errors import UserError
from unistep.io.arguments import require_arguments
from unistep.teachers.codecs import PixelCodec
from unistep.teachers.diffusers.folder import load_component
from unistep.types import constant, upload

PIXELS = PixelCodec()


@dataclass(frozen=True)
class VAECodec:
    """Latents are (raw - mean) / std * scale, raw = (latents / scale) * std + mean, as the VAE's configuration says.

    A sample is decoded by itself, so that it does not depend on its batch. Videos [b, c, frames, h, w] are seen as one
    image each, the frames side by side. The VAE stays on its device (see `codecs.move_codec`): what it is given comes
    to it, and what it makes is there.

    Attributes:
        vae: an autoencoder of diffusers, frozen, in float32.
        source: what `load` takes, or None for a VAE that is only in memory.
        frames: frames of a decoded video, None for images.
        tiling: whether `decode`, for previews and samples, goes tile by tile, which bounds the memory of large images
            and lets the seams differ a little.
    """

    vae: nn.Module
    source: str | None = None
    frames: int | None = None
    tiling: bool = False

    def __post_init__(self) -> None:
        self.vae.eval().requires_grad_(False)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """uint8 [b, 3, h, w] (videos: [b, 3, h, frames w]) -> latents [b, *dims], the mode of the posterior."""
        pixels = self.with_frames(PIXELS.encode(upload(images, self.device)))
        raw = torch.cat([self.encode_raw(row) for row in pixels.split(1)])
        latents = (raw - self.constant("latents_mean", raw)) / self.constant("latents_std", raw, 1.0) * self.scale
        return latents if self.frames is not None or not self.is_temporal else latents.squeeze(2)

    @torch.no_grad()
    def decode(self, x: Tensor) -> Tensor:
        """Latents [b, *dims] -> uint8 [b, 3, h, w] (videos: [b, 3, h, frames w])."""
        with tile_by_tile(self.vae, self.tiling):
            return PIXELS.decode(self.pixels(x))

    @torch.no_grad()
    def pixels(self, x: Tensor) -> Tensor:
        """The same before rounding: float32, about [-1, 1]."""
        return self.images(x)

    def images(self, x: Tensor) -> Tensor:
        """The same with gradients to x, for losses that look at images.

        Of each image only its latents are kept for the backward pass, which decodes it again.
        """
        x = upload(x, self.device)
        latents = (x.unsqueeze(2) if self.is_temporal and self.frames is None else x).float()
        raw = latents / self.scale * self.constant("latents_std", latents, 1.0) + self.constant("latents_mean", latents)
        pixels = torch.cat([self.decode_raw(row) for row in raw.split(1)])
        return pixels.movedim(2, -2).flatten(-2) if self.is_temporal else pixels

    def decode_raw(self, raw: Tensor) -> Tensor:
        """One image or video of the VAE's own latents."""

        def decoded(raw: Tensor) -> Tensor:
            return self.vae.decode(raw, return_dict=False)[0]  # type: ignore[operator]

        return checkpoint(decoded, raw, use_reentrant=False) if raw.requires_grad else decoded(raw)  # type: ignore[return-value]

    def encode_raw(self, pixels: Tensor) -> Tensor:
        """The VAE's own latents of one image or video."""
        encoded = self.vae.encode(pixels, return_dict=False)[0]  # type: ignore[operator]
        return encoded if isinstance(encoded, Tensor) else encoded.mode()

    def with_frames(self, pixels: Tensor) -> Tensor:
        """[b, 3, h, frames w] -> [b, 3, frames, h, w] where the VAE knows frames."""
        return pixels.unflatten(-1, (self.frames or 1, -1)).movedim(-2, 2) if self.is_temporal else pixels

    @property
    def device(self) -> torch.device:
        """Where the VAE is."""
        return next(self.vae.parameters()).device

    @property
    def is_temporal(self) -> bool:
        """Whether the VAE knows frames (Wan, Qwen-Image)."""
        return "temperal_downsample" in self.settings

    @property
    def settings(self) -> dict[str, Any]:
        """The VAE's configuration."""
        return dict(self.vae.config)  # type: ignore[arg-type]

    @property
    def scale(self) -> float:
        """What latents are multiplied with, 1 where the configuration has none."""
        return float(self.settings.get("scaling_factor") or 1.0)

    def constant(self, name: str, latents: Tensor, default: float = 0.0) -> Tensor:
        """latents_mean or latents_std by channel; `shift_factor` is a mean that all channels share."""
        values = self.settings.get(name)
        if values is None:
            values = [(self.settings.get("shift_factor") or default) if name == "latents_mean" else default]
        return constant([*map(float, values)], latents.device, latents.dtype).reshape(1, -1, *[1] * (latents.ndim - 2))

    def config(self) -> dict[str, Any]:
        return {"type": "vae", "source": self.source, "frames": self.frames, "tiling": self.tiling}


@contextmanager
def tile_by_tile(vae: Any, on: bool) -> Iterator[None]:
    """Within the `with` block the VAE decodes large latents in overlapping tiles, where `on`."""
    if on:
        vae.enable_tiling()
    try:
        yield
    finally:
        if on:
            vae.disable_tiling()


def load_codec(config: dict[str, Any]) -> VAECodec:
    """The way back from `VAECodec.config()`: the VAE comes from its pipeline again.

    Raises:
        UserError: if it is not there, or was in memory only.
    """
    arguments = {name: value for name, value in config.items() if name != "type"}
    require_arguments(_vae_codec, arguments, "codec")
    return _vae_codec(**arguments)


def _vae_codec(source: str | None, frames: int | None, tiling: bool = False) -> VAECodec:
    if source is None:
        raise UserError("codec.source: found none: the VAE was in memory only; give the teacher that it belongs to")
    return VAECodec(load_component(source, "vae"), source, frames, tiling)
