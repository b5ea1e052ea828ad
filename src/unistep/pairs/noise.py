"""The z of stored pairs: drawn again from the seeds, not stored, and kept in memory where all of it is small.

Measured on one AVX2 core, a row costs about 25 microseconds and 16 nanoseconds a number to draw: 40 microseconds at
1 x 28 x 28, a thousandth of what one row costs a training step there. Storing z would double the disk.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unistep.diffusion.samplers import seeded_normal
from unistep.errors import UserError

KEPT_BYTES = 256 << 20  # z of 85,000 Fashion-MNIST pairs


class Noise:
    """z of the seeds first_seed..first_seed + count - 1, float32 [*, *dims]."""

    def __init__(self, first_seed: int, count: int, dims: tuple[int, ...]):
        self.first_seed, self.dims = first_seed, dims
        small = 4 * count * math.prod(dims) <= KEPT_BYTES
        self._kept = torch.empty(count, *dims) if small else None
        self._drawn = torch.zeros(count if small else 0, dtype=torch.bool)

    def rows(self, rows: Tensor) -> Tensor:
        """z of these rows, int64 [b] -> [b, *dims]."""
        if self._kept is None:
            return seeded_normal(rows + self.first_seed, self.dims)
        new = rows[~self._drawn[rows]].unique()
        if len(new):
            self._kept[new] = seeded_normal(new + self.first_seed, self.dims)
            self._drawn[new] = True
        return self._kept[rows]

    @staticmethod
    def require_unchanged(facts: Mapping[str, Any], file: Path) -> None:
        """Seeds must still draw the noise that the pairs were made from.

        Raises:
            UserError: if this numpy draws other numbers.
        """
        found = seeded_normal(torch.tensor([0]), tuple(facts["shape"])).flatten()[:4].tolist()
        if found != facts["noise"]:
            raise UserError(
                f"{file}: noise: seed 0 now draws {found}, expected {facts['noise']}: z would not belong to x; "
                "install the numpy that the pairs were made with, or make them anew in another folder"
            )
