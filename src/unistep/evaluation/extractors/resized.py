"""Images brought to another size before anyone judges them, as protocols for text-to-image models want it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unistep.data.images import fit
from unistep.errors import UserError
from unistep.teachers.teacher import Codec


@dataclass(frozen=True)
class ResizedCodec:
    """A codec whose images are resized by Lanczos's filter, on 8-bit pixels as PIL does it.

    Attributes:
        codec: model space to images.
        size: of a side.
    """

    codec: Codec
    size: int

    def encode(self, images: Tensor) -> Tensor:
        """As the codec itself."""
        return self.codec.encode(images)

    def decode(self, x: Tensor) -> Tensor:
        """Model space [b, *dims] -> uint8 [b, c, size, size]."""
        return resized(self.codec.decode(x), self.size)

    def config(self) -> dict[str, Any]:
        return self.codec.config()


def resized(images: Tensor, size: int) -> Tensor:
    """uint8 [b, 1 or 3, h, h] -> uint8 [b, 1 or 3, size, size], on the CPU.

    Raises:
        UserError: for what are no square images.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[2] != images.shape[3]:
        raise UserError(f"evaluation.resize: found samples of shape {list(images.shape[1:])}, expected square images")
    channels = images.shape[1]
    arrays = images.cpu().movedim(1, -1).contiguous().numpy()
    fitted = [fit(Image.fromarray(array.squeeze(-1) if channels == 1 else array), channels, size) for array in arrays]
    return torch.from_numpy(np.stack(fitted)).movedim(-1, 1).contiguous()
