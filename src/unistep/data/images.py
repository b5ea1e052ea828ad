"""Picture files and arrays to 8-bit images of one size and one number of channels."""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError
from torch import Tensor

from unistep.data.config import DataConfig
from unistep.errors import Mistakes, UserError

GREY, COLOUR = {"1", "L", "LA", "La"}, {"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"}
UNREADABLE = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, ArithmeticError, TypeError, RuntimeError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip  # what Pillow's readers raise on damaged files
SHOWN = 10  # damaged pictures that are named; the others are counted
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # the others Pillow may hand to programs outside
MAX_PIXELS = 2**27  # of one picture; a larger one is taken for a decompression bomb


def decode_images(pictures: Iterable[tuple[str, bytes]], config: DataConfig) -> Tensor:
    """Encoded pictures with the name of each -> uint8 [n, c, h, w], in that order.

    Raises:
        UserError: naming every picture that is none, is colour among grey, or is of another size; of many the first.
    """
    images, damaged, colored, others = list[np.ndarray](), list[str](), list[str](), list[str]()
    channels, first, shape = config.channels, "", (0, 0)
    for name, content in pictures:
        try:
            picture = open_picture(name, content, config.background)
        except UserError as error:
            damaged.append(str(error))
            continue
        if not first:
            channels, first = channels or num_channels(picture), name
        if channels == 1 and config.channels is None and num_channels(picture) == 3:
            colored.append(f"{name}: a colour picture, but {first} is grey")
        image = fit(picture, channels or 1, config.size)
        shape = shape if images else image.shape[:2]
        if image.shape[:2] != shape:
            (h, w), (h0, w0) = image.shape[:2], shape
            others.append(f"{name}: {w}x{h} pixels, but {first} has {w0}x{h0}")
        if not images or not (damaged or colored or others):  # else nothing but the mistakes is needed
            images.append(image)
    mistakes = Mistakes()
    mistakes.add(*damaged[:SHOWN])
    mistakes.add(*([f"{len(damaged) - SHOWN:,} more pictures that cannot be read"] if len(damaged) > SHOWN else ()))
    mistakes.add(*summary(colored, "colour pictures", "set data.channels to 1 or 3"))
    mistakes.add(*summary(others, "pictures of other sizes", "set data.size to bring all to one size"))
    mistakes.require_none()
    return torch.from_numpy(np.stack(images)).movedim(-1, 1).contiguous()


def summary(found: list[str], what: str, remedy: str) -> list[str]:
    """The first of several pictures with the same fault, how many there are, and what to do; nothing for none."""
    count = f" ({len(found):,} {what})" if len(found) > 1 else ""
    return [f"{found[0]}{count}; {remedy}"] if found else []


def open_picture(name: str, content: bytes, background: str = "white") -> Image.Image:
    """A picture, fully read, upright, with a color where it is transparent.

    Raises:
        UserError: if the bytes are no 8-bit picture that Pillow reads.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit follows
            picture = Image.open(io.BytesIO(content), formats=FORMATS)
            require_bounded(name, picture)
            require_eight_bits(name, picture)
            picture.load()
        return fill_transparent(ImageOps.exif_transpose(picture), background)
    except UnidentifiedImageError as error:
        raise UserError(
            f"{name}: no image; expected one of {', '.join(FORMATS)}, so remove it or convert it"
        ) from error
    except UserError:
        raise
    except UNREADABLE as error:
        raise UserError(f"{name}: damaged image ({error}); remove it or fetch it again") from error


def require_bounded(name: str, picture: Image.Image) -> None:
    """A header may promise any size; pixels are made room for only up to a limit."""
    if picture.width * picture.height > MAX_PIXELS:
        raise UserError(f"{name}: {picture.width}x{picture.height} pixels, expected at most {MAX_PIXELS} in all")


def require_eight_bits(name: str, picture: Image.Image) -> None:
    """Refuses pictures of more than 8 bits per channel; of color ones Pillow would drop the lower half in silence.

    Raises:
        UserError: naming the picture; nothing is read of it yet but its header.
    """
    tiles: list[Any] = getattr(picture, "tile", [])  # of files; how each part of the picture is stored
    raw = [part for tile in tiles for part in (tile[3] if isinstance(tile[3], tuple) else (tile[3],))]
    deep = any(isinstance(part, str) and re.search(r";(16|32)", part) for part in raw)
    if picture.format == "PPM":
        deep = any(isinstance(part, int) and part > 255 for part in raw)
    if deep or picture.mode not in GREY | COLOUR:
        found = "16 bits per channel" if deep else f"pixels of mode {picture.mode}"
        raise UserError(f"{name}: found {found}, expected 8 bits per channel; convert it first")


def fill_transparent(picture: Image.Image, background: str) -> Image.Image:
    """Transparent parts become the background, half of it where they are half transparent."""
    if not picture.has_transparency_data:
        return picture
    grey = picture.mode in GREY and len({*ImageColor.getrgb(background)}) == 1
    layered = picture.convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", layered.size, background), layered)
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
