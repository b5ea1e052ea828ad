"""The shape of one sample: from the size asked for, the network's own, or the pipeline's."""

import inspect
from dataclasses import dataclass
from typing import Any

from torch import nn

from unistep.errors import UserError
from unistep.teachers.diffusers.families import family_of

USUAL = 1024  # pixels on a side, where a pipeline says it in its code only (Z-Image)


@dataclass(frozen=True)
class Shape:
    """The shape of one sample.

    Attributes:
        dims: as the denoiser sees it, (channels, height, width) or (channels, frames, height, width).
        pixels: height and width of the decoded sample.
        tokens: patches that the network makes of one frame.
        frames: frames of the decoded video, None for images.
    """

    dims: tuple[int, ...]
    pixels: tuple[int, int]
    tokens: int
    frames: int | None = None


def shape_of(pipeline: Any, network: nn.Module, size: tuple[int, int] | None, frames: int | None) -> Shape:
    """The shape of a pipeline's samples.

    Args:
        pipeline: for its VAE, and its own size and frames.
        network: its unet or transformer.
        size: height and width in pixels, or None.
        frames: frames of a video, or None.

    Raises:
        UserError: for a size that the VAE or the patches do not divide, frames where there are none, or a network that
            needs more than the noisy sample.
    """
    config: Any = network.config
    factor, patch = scale_factor(pipeline), patch_side(network)
    height, width = (side * factor for side in latent_size(pipeline, config, factor)) if size is None else size
    if height % (factor * patch) or width % (factor * patch) or min(height, width) < 1:
        raise UserError(
            f"teacher.options.size: found {height} x {width}, expected multiples of {factor * patch} pixels"
        )
    h, w = height // factor, width // factor
    channels = config["in_channels"] // family_of(type(network).__name__, config).packing
    require_plain(config, channels)
    tokens = (h // patch) * (w // patch)
    if not is_video(network):
        if frames is not None:
            raise UserError(f"teacher.options.frames: found {frames}, expected none: this pipeline makes images")
        return Shape((channels, h, w), (height, width), tokens)
    shown = frames or default_of(pipeline, "num_frames")
    step = pipeline.vae_scale_factor_temporal
    if shown < 1 or (shown - 1) % step:
        raise UserError(f"teacher.options.frames: found {shown}, expected 1 more than a multiple of {step}")
    return Shape((channels, (shown - 1) // step + 1, h, w), (height, width), tokens, shown)


def is_video(network: nn.Module) -> bool:
    """Whether samples have a frame axis: the network's patches do (Wan)."""
    return isinstance(network.config.get("patch_size"), list | tuple)  # type: ignore[operator]


def scale_factor(pipeline: Any) -> int:
    """Pixels on the side of one latent, 1 without a VAE."""
    vae = pipeline.components.get("vae")
    if vae is None:
        return 1
    for name in ("vae_scale_factor_spatial", "vae_scale_factor"):
        if getattr(pipeline, name, None) is not None:
            return int(getattr(pipeline, name))
    return 2 ** (len(vae.config.block_out_channels) - 1)


def patch_side(network: nn.Module) -> int:
    """Latents on the side of a patch."""
    config: Any = network.config
    if family_of(type(network).__name__, config).packing > 1:
        return 2
    patch = config.get("patch_size") or config.get("all_patch_size") or 1
    return int(patch if isinstance(patch, int) else patch[-1])


def latent_size(pipeline: Any, config: Any, factor: int) -> tuple[int, int]:
    """Height and width in latents: the network's own, the pipeline's, or the defaults of its call."""
    side = config.get("sample_size") or getattr(pipeline, "default_sample_size", None)
    if side is not None:
        return (side, side) if isinstance(side, int) else (side[0], side[1])
    height, width = (default_of(pipeline, name) or USUAL for name in ("height", "width"))
    return height // factor, width // factor


def default_of(pipeline: Any, name: str) -> Any:
    """The default of an argument of the pipeline's call, None where it has no such argument."""
    parameter = inspect.signature(type(pipeline).__call__).parameters.get(name)
    return None if parameter is None else parameter.default


def require_plain(config: Any, channels: int) -> None:
    """Refuses networks that see more than the noisy sample, such as inpainting ones.

    Raises:
        UserError: naming the channels.
    """
    output = config.get("out_channels")
    if config["in_channels"] == channels and output not in (None, channels, 2 * channels):
        raise UserError(
            f"network: found {channels} channels in and {output} out, expected as many, or twice for variance"
        )
