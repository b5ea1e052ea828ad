"""Image grids: one row per model, one column per seed, enlarged by whole pixels."""

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from unistep.errors import UserError

GAP = 2  # pixels between images
INK = (128, 132, 140, 255)  # legible on white and on black: the background is transparent


def image_grid(rows: Mapping[str, Tensor], scale: int | None = None, target: int = 64) -> Image.Image:
    """Draws images from the same seeds below each other.

    Args:
        rows: name -> uint8 [n, c, h, w], c = 1 or 3, the same n, c, h and w in every row.
        scale: whole enlargement; by default what brings an image to about `target` pixels.
        target: see `scale`.

    Returns:
        An RGBA image with the names at the left.

    Raises:
        UserError: for no rows, or rows of different shapes, or images of another type.
    """
    n, _, h, w = same_shape(rows)
    scale = scale or max(1, round(target / max(h, w)))
    font = ImageFont.load_default(size=13)
    gutter = 12 + max(int(font.getlength(line)) for name in rows for line in name.split("\n")) if any(rows) else 0
    width, height = n * (w * scale + GAP) - GAP, len(rows) * (h * scale + GAP) - GAP
    canvas = Image.new("RGBA", (gutter + width, height))
    draw = ImageDraw.Draw(canvas)
    for i, (name, images) in enumerate(rows.items()):
        top = i * (h * scale + GAP)
        draw.multiline_text((gutter - 8, top + h * scale / 2), name, INK, font, anchor="rm", align="right")
        for j, image in enumerate(images):
            canvas.paste(enlarged(image, scale), (gutter + j * (w * scale + GAP), top))
    return canvas


def grid_png(rows: Mapping[str, Tensor], scale: int | None = None, target: int = 64) -> bytes:
    """`image_grid` as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image_grid(rows, scale, target).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def enlarged(image: Tensor, scale: int) -> Image.Image:
    """One image uint8 [c, h, w], each pixel a square of scale x scale."""
    pixels = image.cpu().numpy()
    pixels = pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1)
    picture = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGBA")
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def same_shape(rows: Mapping[str, Tensor]) -> tuple[int, int, int, int]:
    """The shape that all rows have."""
    shapes = {tuple(images.shape) for images in rows.values()}
    if len(shapes) != 1:
        raise UserError(f"grid: found rows of shapes {sorted(shapes)}, expected one shape")
    shape = shapes.pop()
    kinds = {str(images.dtype) for images in rows.values()}
    if len(shape) != 4 or shape[1] not in (1, 3) or kinds != {"torch.uint8"}:
        raise UserError(f"grid: found {', '.join(kinds)} of shape {shape}, expected uint8 [n, 1 or 3, h, w]")
    return shape
