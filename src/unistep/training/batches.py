"""Batches as a pure function of (seed, step, phase, part): label, pair and image streams on the right device."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Protocol

import torch
from torch import Tensor

from unistep.data.order import rows_between
from unistep.errors import UserError
from unistep.methods.base import Batch, Phase, Random
from unistep.teachers.teacher import Codec, Conditioner
from unistep.training.prefetch import Prefetcher
from unistep.training.random import Shard, StepRandom, derived_seed
from unistep.types import Cond, index_condition, to_device, upload


class BatchSource(Protocol):
    """The source of the loop's batches."""

    def batch(self, step: int, phase: Phase, part: Shard, prefetcher: Prefetcher | None = None) -> Batch:
        """The rows of one part of the global batch of a phase of a step; no state, no order of calls."""
        ...


class PairRows(Protocol):
    """Some rows of a store: z [b, *dims], x [b, *dims] and their condition."""

    @property
    def z(self) -> Tensor: ...

    @property
    def x(self) -> Tensor: ...

    @property
    def cond(self) -> Cond: ...


class Pairs(Protocol):
    """Noise-image pairs by row, what a `PairStore` is: `pairs[index]` with index [b] int64 on the CPU."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor, /) -> PairRows: ...


class Images(Protocol):
    """Real images by row, in model space: `len(images)`, `images.rows(index [b] int64 CPU) -> (x, cond)`."""

    def __len__(self) -> int: ...

    def rows(self, index: Tensor) -> tuple[Tensor, Cond]:
        """x [b, *dims], cond of the rows."""
        ...


@dataclass(frozen=True)
class EncodedImages:
    """8-bit images in memory seen through a codec, an `Images`.

    Attributes:
        images: uint8 [n, c, h, w].
        labels: int64 [n] or None.
        codec: images -> model space.
        conditioner: labels -> cond; None leaves the labels as they are.
    """

    images: Tensor
    labels: Tensor | None
    codec: Codec
    conditioner: Conditioner | None = None

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, index: Tensor) -> tuple[Tensor, Cond]:
        """x [b, *dims], cond of the rows."""
        x = self.codec.encode(self.images[index])
        if self.labels is None:
            return x, None
        labels = self.labels[index].long()
        return x, self.conditioner.from_labels(labels) if self.conditioner is not None else labels


@dataclass(frozen=True)
class TensorImages:
    """Samples already in model space (points, latents, a teacher's samples), an `Images`: x [n, *dims], cond [n]."""

    x: Tensor
    cond: Cond = None

    def __len__(self) -> int:
        return len(self.x)

    def rows(self, index: Tensor) -> tuple[Tensor, Cond]:
        """x [b, *dims], cond of the rows."""
        return self.x[index], index_condition(self.cond, index)


class Streams:
    """The batches of a run from up to three streams: conditions, pairs, real images.

    Every phase of a step has rows of its own; a phase that reuses samples gets their batch again from the loop. Pairs
    and images, which a phase gets if its `inputs` name them, are shuffled anew in each epoch.

    Args:
        seed: the run's seed.
        batch: rows of the unpaired stream and of real images, over all parts.
        pair_batch: rows of the pair stream, over all parts; None = batch.
        device: where the tensors go.
        conditioner: makes the conditions of the unpaired stream; None = unconditional.
        pairs, images: the other streams.
        real_condition: labels of real images and randomness of the phase -> their condition; None = the images' own.
    """

    def __init__(
        self,
        *,
        seed: int,
        batch: int,
        pair_batch: int | None = None,
        device: torch.device | str = "cpu",
        conditioner: Conditioner | None = None,
        pairs: Pairs | None = None,
        images: Images | None = None,
        real_condition: Callable[[Cond, Random], Cond] | None = None,
    ):
        for name, rows in (("pairs", pairs), ("images", images)):
            if rows is not None and len(rows) == 0:
                raise UserError(f"{name}: found 0 rows, expected at least one")
        self.seed, self.size, self.pair_size = seed, batch, pair_batch or batch
        self.device, self.conditioner, self.pairs, self.images = device, conditioner, pairs, images
        self.real_condition, self.reading = real_condition, Lock()

    def batch(self, step: int, phase: Phase, part: Shard, prefetcher: Prefetcher | None = None) -> Batch:
        """One part of one phase's global batch.

        Args:
            step, phase, part: which one.
            prefetcher: reads conditions and pairs of the next step's batch meanwhile; images may need the device.

        Raises:
            UserError: if a batch cannot be divided among the parts.
        """
        size, name = rows_per_shard("training.batch", self.size, part), ("batch", phase.name, part)
        read, read_next = (partial(self.read, s, phase, part) for s in (step, step + 1))
        if prefetcher is None:
            cond, (pair_z, pair_x, pair_cond) = read()
        else:
            cond, (pair_z, pair_x, pair_cond) = prefetcher.take(step, name, read)
            prefetcher.submit(step + 1, name, read_next)
        real, real_cond = self.image_rows(step, phase, part)
        return Batch(
            size=size, cond=to_device(cond, self.device), real=real, real_cond=real_cond,
            pair_z=None if pair_z is None else upload(pair_z, self.device),
            pair_x=None if pair_x is None else upload(pair_x, self.device), pair_cond=to_device(pair_cond, self.device),
        )  # fmt: skip

    def read(self, step: int, phase: Phase, part: Shard) -> tuple[Cond, tuple[Tensor | None, Tensor | None, Cond]]:
        """Conditions and pairs of a batch, on the CPU; one thread at a time."""
        with self.reading:
            return self.condition(step, phase.name, part), self.pair_rows(step, phase, part)

    def condition(self, step: int, phase: str, part: Shard) -> Cond:
        """Conditions of the unpaired stream, each from a seed of its own."""
        if self.conditioner is None:
            return None
        size = rows_per_shard("training.batch", self.size, part)
        seeds = StepRandom(self.seed, step, f"conditions of {phase}", part).integers(size, 0, 2**62)
        return self.conditioner.from_seeds(seeds)

    def pair_rows(self, step: int, phase: Phase, part: Shard) -> tuple[Tensor | None, Tensor | None, Cond]:
        """z, x and condition of this part's pairs."""
        if self.pairs is None or "pairs" not in phase.inputs:
            return None, None, None
        rows = self.pairs[
            self.places("training.pair_batch", self.pair_size, len(self.pairs), "pairs", step, phase.name, part)
        ]
        cond = rows.cond
        if self.conditioner is not None and isinstance(cond, Tensor):
            cond = self.conditioner.from_labels(cond)
        return rows.z, rows.x, cond

    def image_rows(self, step: int, phase: Phase, part: Shard) -> tuple[Tensor | None, Cond]:
        """This part's real images and their condition."""
        if self.images is None or "images" not in phase.inputs:
            return None, None
        places = self.places("training.batch", self.size, len(self.images), "images", step, phase.name, part)
        x, cond = self.images.rows(places)
        if self.real_condition is not None:
            cond = self.real_condition(cond, StepRandom(self.seed, step, f"labels of {phase.name}", part))
        return upload(x, self.device), to_device(cond, self.device)

    def places(self, setting: str, batch: int, n: int, kind: str, step: int, phase: str, part: Shard) -> Tensor:
        """Which of n rows this part takes from a batch, in the stream's order of its own for each phase."""
        rows = rows_per_shard(setting, batch, part)
        return rows_between(n, step * batch + part.index * rows, rows, derived_seed(self.seed, f"{kind} of", phase))


def rows_per_shard(setting: str, rows: int, part: Shard) -> int:
    """Rows of each part.

    Raises:
        UserError: if the rows cannot be divided evenly.
    """
    if rows % part.count:
        raise UserError(
            f"{setting}: found {rows}, expected a multiple of {part.count} (ranks times training.accumulate)"
        )
    return rows // part.count
