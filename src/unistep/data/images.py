"""Picture files and arrays to 8-bit images of one size and one number of channels."""

import io
import struct
import warnings
import zlib
from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from unistep.data.config import DataConfig
from unistep.errors import UserError

GREY, COLOUR = {"1", "L", "LA", "La"}, {"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"}
UNREADABLE = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, ArithmeticError, TypeError, RuntimeError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip  # what Pillow's readers raise on damaged files
MAX_PIXELS = 2**27  # of one picture; a larger one is taken for a decompression bomb


def decode_images(pictures: Iterable[tuple[str, bytes]], config: DataConfig) -> Tensor:
    """Encoded pictures with the name of each -> uint8 [n, c, h, w], in that order.

    Raises:
        UserError: naming the picture that is none, is colour among grey, or is of another size.
    """
    images: list[np.ndarray] = []
    channels, first = config.channels, ""
    for name, content in pictures:
        picture = open_picture(name, content)
        channels, first = channels or num_channels(picture), first or name
        if channels == 1 and config.channels is None and num_channels(picture) == 3:
            raise UserError(f"{name}: a colour picture, but {first} is grey; set data.channels to 1 or 3")
        images.append(fit(picture, channels, config.size))
        if images[-1].shape != images[0].shape:
            (h, w), (h0, w0) = images[-1].shape[:2], images[0].shape[:2]
            raise UserError(
                f"{name}: {w}x{h} pixels, but {first} has {w0}x{h0}; set data.size to bring all to one size"
            )
    return torch.from_numpy(np.stack(images)).movedim(-1, 1).contiguous()


def open_picture(name: str, content: bytes) -> Image.Image:
    """A picture, fully read, upright, on white where it is transparent.

    Raises:
        UserError: if the bytes are no 8-bit picture that Pillow reads.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit follows
            picture = Image.open(io.BytesIO(content))
            require_bounded(name, picture)
            picture.load()
        if picture.mode not in GREY | COLOUR:
            raise UserError(
                f"{name}: found pixels of mode {picture.mode}, expected 8 bits per channel; convert it first"
            )
        return on_white(ImageOps.exif_transpose(picture))
    except UnidentifiedImageError as error:
        raise UserError(f"{name}: no image; expected a PNG, JPEG or other picture, so remove it or fix it") from error
    except UserError:
        raise
    except UNREADABLE as error:
        raise UserError(f"{name}: damaged image ({error}); remove it or fetch it again") from error


def require_bounded(name: str, picture: Image.Image) -> None:
    """A header may promise any size; pixels are made room for only up to a limit."""
    if picture.width * picture.height > MAX_PIXELS:
        raise UserError(f"{name}: {picture.width}x{picture.height} pixels, expected at most {MAX_PIXELS} in all")


def on_white(picture: Image.Image) -> Image.Image:
    """Transparent parts become white, as a page would show them."""
    if not picture.has_transparency_data:
        return picture
    grey = picture.mode in GREY
    layered = picture.convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered)
    return flat.convert("L" if grey else "RGB")


def num_channels(picture: Image.Image) -> int:
    """1 for a grey picture, 3 for a colour one (a palette counts as colour)."""
    return 1 if picture.mode in GREY else 3


def fit(picture: Image.Image, channels: int, size: int | None) -> np.ndarray:
    """Picture -> uint8 [h, w, c]; with a size, the middle square is resized to it (Lanczos, antialiased)."""
    picture = picture.convert("L" if channels == 1 else "RGB")
    if size and picture.size != (size, size):
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)
    array = np.asarray(picture)
    return array[:, :, None] if channels == 1 else array


def fit_arrays(images: Tensor, config: DataConfig) -> Tensor:
    """uint8 [n, c, h, w] from a file of arrays -> the size and channels that the configuration asks for."""
    c, h, w = images.shape[1:]
    if (config.size or h, config.size or w, config.channels or c) == (h, w, c):
        return images
    arrays = images.movedim(1, -1).squeeze(-1).numpy() if c == 1 else images.movedim(1, -1).contiguous().numpy()
    fitted = [fit(Image.fromarray(array), config.channels or c, config.size) for array in arrays]
    return torch.from_numpy(np.stack(fitted)).movedim(-1, 1).contiguous()


def drawn_rows(n: int, limit: int | None) -> Tensor:
    """Rows to use of n, int64, ascending: all, or `limit` of them drawn by a fixed seed, so that no class is lost."""
    if limit is None or limit >= n:
        return torch.arange(n)
    return shuffled_rows(n)[:limit].sort().values


def shuffled_rows(n: int) -> Tensor:
    """All rows of n in an order drawn by a fixed seed, int64: the first of them are a fair sample of all."""
    return torch.from_numpy(np.random.default_rng(0).permutation(n))
