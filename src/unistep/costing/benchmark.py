"""Where something is measured: a device, its memory, a clock, and how much of both may be spent."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from unistep.costing.line import Line
from unistep.costing.memory import Meter

KEPT = 3  # sizes that a line is drawn through

Clock = Callable[[], float]
Work = Callable[[], object]
Rungs = Iterable[tuple[float, Callable[[], Sequence[Work]]]]
"""Sizes, ascending, and what makes the works at each."""


@dataclass(frozen=True)
class Measurement:
    """What some work took.

    Attributes:
        seconds: of one run, the median of those that were timed.
        peak: the most bytes in use meanwhile, above those that were expected.
        kept: bytes still in use afterwards, likewise: what an allocator does not give back.
        runs: of the work, the timed ones and the one before them.
    """

    seconds: float
    peak: int
    kept: int
    runs: int


@dataclass(frozen=True)
class Benchmark:
    """Where measurements take place and what they may take.

    Attributes:
        device: where the networks are.
        meter: of its memory.
        seconds: nothing larger is tried once the next measurement would exceed them.
        memory: nor if it would come to hold so many bytes.
        clock: seconds.
    """

    device: torch.device
    meter: Meter
    seconds: float
    memory: float
    clock: Clock = time.perf_counter

    def climb(self, rungs: Rungs, floor: int) -> dict[float, list[Measurement]]:
        """Measures works at growing sizes as long as the next size, judged by the last, can be afforded.

        The smallest sizes warm up and tell whether more can be tried; only the three largest are returned.

        Args:
            rungs: sizes and works.
            floor: bytes in use without the works.

        Returns:
            size -> what each of the works took there.
        """
        taken: dict[float, list[Measurement]] = {}
        begun = self.clock()
        for size, make_works in rungs:
            if taken and not self.affordable(taken, size, floor, self.clock() - begun):
                break
            taken[size] = [self.measure(work, floor) for work in make_works()]
        return dict(sorted(taken.items())[-KEPT:])

    def affordable(self, taken: Mapping[float, Sequence[Measurement]], size: float, floor: int, spent: float) -> bool:
        """Whether a size can be tried. Memory decides alone until there are two to draw a line through."""
        last = max(taken)
        growth = size / last
        memory = floor + growth * max(work.peak for work in taken[last])
        next_ones = [growth * work.seconds for work in taken[last]]
        seconds = spent + sum((1 + self.repeats(once)) * once for once in next_ones)
        return memory < self.memory and (len(taken) < 2 or seconds < self.seconds)

    def measure(self, work: Work, floor: int) -> Measurement:
        """Runs work once to warm up and some times on the clock; the global random state is as before afterwards."""
        self.meter.start()
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            once = self.timed(work)
            times = [self.timed(work) for _ in range(self.repeats(once))]
        peak, kept = self.meter.peak() - floor, self.meter.now() - floor
        return Measurement(statistics.median(times), max(peak, 1), max(kept, 1), 1 + len(times))

    def timed(self, work: Work) -> float:
        """Seconds of one run, the accelerator's queue included."""
        start = self.clock()
        work()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return max(self.clock() - start, 1e-9)

    def repeats(self, once: float) -> int:
        """How often to time what takes so long: the longer, the steadier, and larger sizes tell more."""
        shares = {5: 400, 3: 100, 2: 20}  # times it is run: of the time there is, at most one part in so many for one
        return next((times for times, share in shares.items() if once < self.seconds / share), 1)


def line_of(taken: Mapping[float, Measurement], what: Callable[[Measurement], float]) -> Line:
    """The line through one of the figures."""
    return Line.through({size: what(work) for size, work in taken.items()})
