"""Which images a training step sees: a pure function of image count, batch, seed and step, so resume needs no state."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


@lru_cache(maxsize=16)  # each phase of a step has an order of its own, and may touch two epochs
def _order(n: int, seed: int, epoch: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(n))


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """The order of n images in one epoch: a permutation of 0..n-1, int64 [n]; seed and epoch are not negative."""
    return _order(n, seed, epoch).clone()


def rows_for_step(n: int, batch: int, seed: int, step: int) -> Tensor:
    """The images of one step, int64 [batch].

    Epochs lie end to end and steps cut that line into batches, so each image comes exactly once per epoch and no
    image is dropped at an epoch's end: a batch there holds the last images of one epoch and the first of the next.
    """
    return rows_between(n, step * batch, batch, seed)


def rows_between(n: int, first: int, count: int, seed: int) -> Tensor:
    """The images at `count` places of that line from place `first` on, int64 [count]: what one rank needs of a step.

    A place costs the same whatever the batch; the order of an epoch is drawn once, when a place of it is first asked
    for.
    """
    rows: list[Tensor] = []
    while (missing := count - sum(map(len, rows))) > 0:
        epoch, offset = divmod(first, n)
        rows.append(_order(n, seed, epoch)[offset : offset + missing])
        first += len(rows[-1])
    return torch.cat(rows)
