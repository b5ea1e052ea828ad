"""Random numbers as a pure function of (seed, step, stream, row), drawn by each rank for its own rows only.

The generator is numpy's counter-based Philox. Its 128-bit key is a hash of seed, step and stream, and its counter names
the draw within the stream and the row, so a rank begins where its rows begin and the cost depends on their number, not
on the number of ranks.

The numbers are the same, bit for bit, on every processor and for every device: words become whole numbers and uniforms
by integer arithmetic, and normals by the Box-Muller transform written out in float32 additions, multiplications,
divisions and square roots, which IEEE 754 rounds alike everywhere. Logarithms and sines of a library differ in the
last bits between vector units, which is why they are polynomials here; these are as exact as float32.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unistep.types import upload

VERSION = 2
"""Of the numbers: a run goes on only with those that it began with. 1 were torch's, drawn for the whole batch."""

Words = NDArray[np.uint64]
Floats = NDArray[Any]  # float32; numpy's annotations widen arithmetic with its scalars

CHUNK = 1 << 15  # words at a time: their intermediate results stay in a core's cache


@dataclass(frozen=True)
class Part:
    """This rank's share of one micro-batch: a run of consecutive rows of the global batch.

    With W ranks and M micro-batches, rank r sees in micro-batch m the part m W + r of W M. Every part has as many
    rows, so the mean over parts of the parts' means is the mean over the global batch.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        assert 0 <= self.index < self.count, f"part {self.index} of {self.count}"

    def take(self, rows: Tensor) -> Tensor:
        """This part's rows of a global tensor [n, ...], n a multiple of count -> [n / count, ...]."""
        return rows.chunk(self.count)[self.index] if len(rows) else rows


def derived_seed(*keys: int | str) -> int:
    """A 63-bit seed from any keys, the same on every machine (the first 8 bytes of their SHA-256)."""
    return int.from_bytes(hash_keys(*keys)[:8], "little") >> 1


def hash_keys(*keys: int | str) -> bytes:
    """SHA-256 of any keys."""
    return hashlib.sha256("\0".join(map(str, keys)).encode()).digest()


class StepRandom:
    """The random numbers of one stream of one step, as `methods.base.Random` asks for them.

    The draws of a stream are numbered, so the calls of all parts must come in the same order.

    Args:
        seed: the run's seed.
        step: the training step.
        stream: name of the phase or data stream.
        part: which rows of the global batch to return.
        device: where the tensors go; they are copied there without waiting for it.
    """

    def __init__(self, seed: int, step: int, stream: str, part: Part | None = None, device: torch.device | str = "cpu"):
        self.part, self.device, self.draws = part or Part(), device, 0
        self.key = int.from_bytes(hash_keys(seed, step, stream)[:16], "little")

    def normal(self, rows: int, *dims: int) -> Tensor:
        """[rows, *dims] unit Gaussian, float32."""
        size = math.prod(dims)
        out = np.empty((rows, size), np.float32)
        words = (size + 1) // 2  # of a row; each gives two numbers
        stream = self.words(rows, words)
        per_chunk = max(1, CHUNK // max(words, 1))
        for first in range(0, rows, per_chunk):
            rows_here = out[first : first + per_chunk]
            fill_normal(rows_here, next_words(stream, len(rows_here) * words).reshape(len(rows_here), words))
        return self.deliver(out.reshape(rows, *dims))

    def integers(self, rows: int, low: int, high: int) -> Tensor:
        """[rows] int64, uniform in low..high inclusive; the bias is at most (high - low + 1) / 2^64."""
        words = next_words(self.words(rows, 1), rows)
        return self.deliver((words % np.uint64(high - low + 1)).astype(np.int64) + low)

    def uniform(self, rows: int) -> Tensor:
        """[rows] uniform in [0, 1), float32, multiples of 2^-24."""
        words = next_words(self.words(rows, 1), rows)
        return self.deliver((words >> np.uint64(40)).astype(np.float32) * np.float32(2**-24))

    def words(self, rows: int, per_row: int) -> np.random.Generator:
        """The next draw's 64-bit words from this part's first row on; row i has the words i w .. i w + w - 1."""
        block, offset = divmod(self.part.index * rows * per_row, 4)  # a counter gives four words
        philox = np.random.Philox(key=self.key, counter=(self.draws << 128) + block)
        self.draws += 1
        generator = np.random.Generator(philox)
        next_words(generator, offset)
        return generator

    def deliver(self, values: NDArray[np.generic]) -> Tensor:
        """The numbers on the stream's device."""
        return upload(torch.from_numpy(values), self.device)


def next_words(generator: np.random.Generator, count: int) -> Words:
    """The next raw words, uint64 [count]; unlike `random_raw` it lets other threads run meanwhile."""
    return generator.integers(0, 2**64, count, dtype=np.uint64)


def fill_normal(out: Floats, words: Words) -> None:
    """Unit Gaussian numbers [rows, n] from words [rows, ceil(n / 2)], by Box and Muller's transform.

    The low half of a word gives the radius sqrt(-2 ln u), the high half the angle and a sign; the first half of a row
    are the cosines, the second the sines.
    """
    low, high = (half.astype(np.uint32).view(np.int32) for half in (words, words >> np.uint64(32)))
    radius = np.sqrt(minus_two_log((low & np.int32(0x7FFFFFFF)).astype(np.float32)))
    sign = high & np.int32(-(2**31))  # for the other half of the circle
    radius = (radius.view(np.int32) ^ sign).view(np.float32)
    angle = ((high & np.int32(0x7FFFFFFF)) - np.int32(2**30)).astype(np.float32) + np.float32(0.5)
    angle *= np.float32(math.pi / 2**31)  # in -pi/2 .. pi/2
    square, cosines = angle * angle, words.shape[1]
    out[:, :cosines] = radius * polynomial(square, COS)
    out[:, cosines:] = (radius * angle * polynomial(square, SIN))[:, : out.shape[1] - cosines]


def minus_two_log(k: Floats) -> Floats:
    """-2 ln((k + 1/2) / 2^31) of whole numbers 0 <= k < 2^31, >= 0.

    u = 2^e m with m in sqrt(1/2) .. sqrt(2), and ln m = 2 artanh s with s = (m - 1) / (m + 1).
    """
    u = (k + np.float32(0.5)) * np.float32(2**-31)
    bits = u.view(np.int32)
    e = (bits - np.int32(0x3F3504F3)) >> np.int32(23)
    m = (bits - (e << np.int32(23))).view(np.float32)
    s = (m - np.float32(1)) / (m + np.float32(1))
    return np.maximum(e.astype(np.float32) * np.float32(-2 * math.log(2)) + s * polynomial(s * s, LOG), np.float32(0))


def polynomial(x: Floats, coefficients: tuple[float, ...]) -> Floats:
    """sum_k coefficients[k] x^k, by Horner's rule in float32."""
    *rest, last = map(np.float32, coefficients)
    value = x * last
    for c in reversed(rest[1:]):
        value += c
        value *= x
    value += rest[0]
    return value


COS = tuple((-1) ** k / math.factorial(2 * k) for k in range(7))
SIN = tuple((-1) ** k / math.factorial(2 * k + 1) for k in range(6))
LOG = tuple(-4 / (2 * k + 1) for k in range(5))
