"""Prefetches random numbers and pairs of the next step in a thread while the device runs this one.

Draws are pure functions of seed, step, stream and row, so their order in time changes no number: the draws of a phase
in this step are prefetched for the next one, and a draw that was not prefetched is made when it is needed.

Only for accelerators. On a CPU the thread would take its time from the cores that train: of a step of `fashion-mnist`
(64 rows, one core) all draws are 0.2 %, which is the most that a thread could save.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from unistep.training.random import Request, Shard, StepRandom, derived_seed, draw, stream_key

Result = TypeVar("Result")


class Prefetcher:
    """One thread and the results it has been asked for, by step and name.

    Args:
        device: the accelerator; on CUDA draws are made into pinned memory, which is copied without waiting.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.thread = ThreadPoolExecutor(1, "unistep-prefetch", self.set_device)
        self.pending: dict[tuple[int, Hashable], Future[Any]] = {}

    def set_device(self) -> None:
        """Sets the thread's device: pinned memory belongs to its context, which would be another rank's."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    def submit(self, step: int, name: Hashable, make: Callable[[], Result]) -> None:
        """Starts computing a result for a step."""
        self.pending[step, name] = self.thread.submit(make)

    def take(self, step: int, name: Hashable, make: Callable[[], Result]) -> Result:
        """Returns the submitted result, or computes it if none was submitted."""
        future = self.pending.pop((step, name), None)
        return make() if future is None else future.result()

    def discard_before(self, step: int) -> None:
        """Drops results of earlier steps that were not taken."""
        for key in [key for key in self.pending if key[0] < step]:
            self.pending.pop(key).cancel()

    def random(self, seed: int, step: int, stream: str, part: Shard) -> StepRandom:
        """The random numbers of a stream, with the prefetched draws."""
        ready = self.take(step, (stream, part), list[tuple[Request, Tensor]])
        return StepRandom(seed, step, stream, part, self.device, ready)

    def prefetch_draws(self, seed: int, step: int, stream: str, rng: StepRandom) -> None:
        """Prefetches for a step the draws that the stream had in an earlier one."""
        requests, part = tuple(rng.requests), rng.part
        self.submit(step, (stream, part), lambda: self.draw_all(stream_key(seed, step, stream), part, requests))

    def draw_all(self, key: int, part: Shard, requests: Sequence[Request]) -> list[tuple[Request, Tensor]]:
        """All draws of a stream in a step."""
        return [(request, self.pin(draw(key, part, number, request))) for number, request in enumerate(requests)]

    def pin(self, tensor: Tensor) -> Tensor:
        """The tensor in pinned memory on CUDA."""
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def close(self) -> None:
        """Ends the thread; results that it has not begun are dropped."""
        self.thread.shutdown(cancel_futures=True)
        self.pending.clear()


@contextmanager
def phase_random(
    seed: int, step: int, phase: str, part: Shard, device: torch.device, prefetcher: Prefetcher | None = None
) -> Iterator[StepRandom]:
    """The random numbers of a phase of a step; inside the `with` block layers such as dropout have a seed of their own.

    With a prefetcher the draws made inside the block are prefetched for the next step.
    """
    seed_layers(derived_seed(seed, step, phase, "layers", part.index), device)
    if prefetcher is None:
        yield StepRandom(seed, step, phase, part, device)
        return
    rng = prefetcher.random(seed, step, phase, part)
    yield rng
    prefetcher.prefetch_draws(seed, step + 1, phase, rng)


def seed_layers(seed: int, device: torch.device) -> None:
    """Seeds the default generators of the CPU and the device; torch.manual_seed would visit every kind of device."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
