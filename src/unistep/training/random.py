"""Randomness as a pure function of (seed, step, stream, row): resume, rank count and accumulation do not change it."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Part:
    """This rank's share of one micro-batch: the global rows i with i % count == index.

    With W ranks and M micro-batches, rank r sees in micro-batch m the part m W + r of W M. Every part has as many
    rows, so the mean over parts of the parts' means is the mean over the global batch.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        assert 0 <= self.index < self.count, f"part {self.index} of {self.count}"

    def take(self, rows: Tensor) -> Tensor:
        """This part's rows of a global tensor [n, ...], n a multiple of count -> [n / count, ...]."""
        return rows[self.index :: self.count]


def derived_seed(*keys: int | str) -> int:
    """A 63-bit seed from any keys, the same on every machine (the first 8 bytes of their SHA-256)."""
    digest = hashlib.sha256("\0".join(map(str, keys)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


class StepRandom:
    """The random numbers of one stream of one step, as `methods.base.Random` asks for them.

    Every call draws the tensor of the whole global batch from one CPU generator and returns this part's rows, so the
    calls of all parts must come in the same order. Drawing on the CPU makes the numbers the same on every device.

    Args:
        seed: the run's seed.
        step: the training step.
        stream: name of the phase or data stream.
        part: which rows of the global batch to return.
        device: where the tensors go.
    """

    def __init__(self, seed: int, step: int, stream: str, part: Part | None = None, device: torch.device | str = "cpu"):
        self.part, self.device = part or Part(), device
        self.generator = torch.Generator().manual_seed(derived_seed(seed, step, stream))

    def normal(self, rows: int, *dims: int) -> Tensor:
        """[rows, *dims] unit Gaussian, float32."""
        return self.mine(torch.randn(rows * self.part.count, *dims, generator=self.generator))

    def integers(self, rows: int, low: int, high: int) -> Tensor:
        """[rows] int64, uniform in low..high inclusive."""
        return self.mine(torch.randint(low, high + 1, (rows * self.part.count,), generator=self.generator))

    def uniform(self, rows: int) -> Tensor:
        """[rows] uniform in [0, 1), float32."""
        return self.mine(torch.rand(rows * self.part.count, generator=self.generator))

    def mine(self, global_rows: Tensor) -> Tensor:
        """This part's rows on the stream's device."""
        return self.part.take(global_rows).contiguous().to(self.device)
