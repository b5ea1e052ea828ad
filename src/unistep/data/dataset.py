"""A set of images in memory: what every reader in this folder returns."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ImageDataset:
    """Images of one size, with or without labels.

    Attributes:
        images: uint8 [n, c, h, w], c = 1 (grey) or 3 (RGB).
        labels: int64 [n], 0..k-1, or None.
        names: readable name of each of the k classes; empty without labels.
        captions: the text of each image; empty without captions.
    """

    images: Tensor
    labels: Tensor | None = None
    names: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 without labels."""
        return len(self.names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        c, h, w = self.images.shape[1:]
        return c, h, w

    def select(self, rows: Tensor | slice) -> "ImageDataset":
        """The images at `rows`, with the same classes."""
        labels = None if self.labels is None else self.labels[rows]
        kept = torch.arange(len(self))[rows].tolist() if self.captions else []
        return replace(
            self, images=self.images[rows], labels=labels, captions=tuple(self.captions[row] for row in kept)
        )

    def with_captions(self, captions: Sequence[str]) -> "ImageDataset":
        """The same images with a text each."""
        return replace(self, captions=tuple(captions))
