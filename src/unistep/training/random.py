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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

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
class Shard:
    """A shard of the global batch: the consecutive rows of one rank in one micro-batch.

    With W ranks and M micro-batches, rank r has shard m W + r of W M in micro-batch m. All shards have the same number
    of rows, so the mean over their means is the mean over the global batch.
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


Request = tuple[Literal["normal", "integers", "uniform"], int, tuple[int, ...]]
"""A draw: its kind, the number of rows, and dims or bounds."""


class StepRandom:
    """The random numbers of one stream of one step, as `methods.base.Random` asks for them.

    The draws of a stream are numbered, so the calls of all parts must come in the same order.

    Args:
        seed: the run's seed.
        step: the training step.
        stream: name of the phase or data stream.
        part: which rows of the global batch to return.
        device: where the tensors go; they are copied there without waiting for it.
        ready: draws by number that were made ahead of time, each used if it is the one that is asked for.
    """

    def __init__(
        self,
        seed: int,
        step: int,
        stream: str,
        part: Shard | None = None,
        device: torch.device | str = "cpu",
        ready: Sequence[tuple[Request, Tensor]] = (),
    ):
        self.key, self.part, self.device, self.ready = stream_key(seed, step, stream), part or Shard(), device, ready
        self.requests: list[Request] = []

    def normal(self, rows: int, *dims: int) -> Tensor:
        """[rows, *dims] unit Gaussian, float32."""
        return self.next(("normal", rows, dims))

    def integers(self, rows: int, low: int, high: int) -> Tensor:
        """[rows] int64, uniform in low..high inclusive; the bias is at most (high - low + 1) / 2^64."""
        return self.next(("integers", rows, (low, high)))

    def uniform(self, rows: int) -> Tensor:
        """[rows] uniform in [0, 1), float32, multiples of 2^-24."""
        return self.next(("uniform", rows, ()))

    def next(self, request: Request) -> Tensor:
        """The next draw of the stream, on its device."""
        number = len(self.requests)
        self.requests.append(request)
        if number < len(self.ready) and self.ready[number][0] == request:
            return upload(self.ready[number][1], self.device)
        return upload(draw(self.key, self.part, number, request), self.device)


def stream_key(seed: int, step: int, stream: str) -> int:
    """Philox's 128-bit key of a stream of a step."""
    return int.from_bytes(hash_keys(seed, step, stream)[:16], "little")


def draw(key: int, part: Shard, number: int, request: Request) -> Tensor:
    """This part's rows of draw `number` of a stream, on the CPU; row i has the words i w .. i w + w - 1, w a row's."""
    kind, rows, values = request
    size = math.prod(values) if kind == "normal" else 1
    per_row = (size + 1) // 2 if kind == "normal" else 1  # a word makes two normals
    block, offset = divmod(part.index * rows * per_row, 4)  # a counter gives four words
    generator = np.random.Generator(np.random.Philox(key=key, counter=(number << 128) + block))
    next_words(generator, offset)
    if kind == "normal":
        return torch.from_numpy(normals(generator, rows, size, per_row)).reshape(rows, *values)
    words = next_words(generator, rows)
    if kind == "uniform":
        return torch.from_numpy((words >> np.uint64(40)).astype(np.float32) * np.float32(2**-24))
    low, high = values
    return torch.from_numpy((words % np.uint64(high - low + 1)).astype(np.int64) + low)


def normals(generator: np.random.Generator, rows: int, size: int, per_row: int) -> Floats:
    """Unit Gaussian numbers [rows, size] from `per_row` words each, a chunk of rows at a time."""
    out = np.empty((rows, size), np.float32)
    chunk = max(1, CHUNK // max(per_row, 1))
    for first in range(0, rows, chunk):
        here = out[first : first + chunk]
        fill_normal(here, next_words(generator, len(here) * per_row).reshape(len(here), per_row))
    return out


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
