"""What the next step needs of random numbers and pairs, made in a thread while the device is busy with this one.

Draws are pure functions of seed, step, stream and row, so making them early changes no number: the draws that a phase
made in this step are made again for the next one, and one that is asked for otherwise is made when it is asked for.

Only for accelerators. On a CPU the thread would take its time from the cores that train: of a step of `fashion-mnist`
(64 rows, one core) all draws are 0.2 %, which is the most that a thread could save.
"""

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from unistep.training.random import Part, Request, StepRandom, draw, stream_key

Result = TypeVar("Result")


class Ahead:
    """One thread and what it has been given to do, by step and name.

    Args:
        device: the accelerator; on CUDA draws are made into pinned memory, from which copies do not wait.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.thread = ThreadPoolExecutor(1, "unistep-ahead", self.choose_device)
        self.pending: dict[tuple[int, Hashable], Future[Any]] = {}

    def choose_device(self) -> None:
        """Pinned memory belongs to the context of the thread's device, which would be another rank's."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    def expect(self, step: int, name: Hashable, make: Callable[[], Result]) -> None:
        """Starts making something that a step is expected to take."""
        self.pending[step, name] = self.thread.submit(make)

    def take(self, step: int, name: Hashable, make: Callable[[], Result]) -> Result:
        """What was expected, or, if nothing was, what is made now."""
        future = self.pending.pop((step, name), None)
        return make() if future is None else future.result()

    def forget(self, step: int) -> None:
        """Drops what was expected of the steps before this one, and never taken."""
        for key in [key for key in self.pending if key[0] < step]:
            self.pending.pop(key).cancel()

    def random(self, seed: int, step: int, stream: str, part: Part) -> StepRandom:
        """A stream's numbers, those made ahead among them."""
        ready = self.take(step, (stream, part), list[tuple[Request, Tensor]])
        return StepRandom(seed, step, stream, part, self.device, ready)

    def repeat(self, seed: int, step: int, stream: str, rng: StepRandom) -> None:
        """Expects the same draws of the stream in a step."""
        requests, part = tuple(rng.requests), rng.part
        self.expect(step, (stream, part), lambda: self.draws(stream_key(seed, step, stream), part, requests))

    def draws(self, key: int, part: Part, requests: Sequence[Request]) -> list[tuple[Request, Tensor]]:
        """All draws of a stream of a step."""
        return [(request, self.pinned(draw(key, part, number, request))) for number, request in enumerate(requests)]

    def pinned(self, tensor: Tensor) -> Tensor:
        """The tensor where the device can copy it from by itself."""
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def close(self) -> None:
        """Ends the thread; what it has not begun is not made."""
        self.thread.shutdown(cancel_futures=True)
        self.pending.clear()
