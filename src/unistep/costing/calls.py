"""What it costs to ask a network without gradients: for pairs, previews and evaluations."""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from unistep.costing.benchmark import Benchmark, line_of
from unistep.costing.line import Line

ROWS = (1, 4, 16, 64, 256)


@dataclass(frozen=True)
class CallCosts:
    """One call, as lines over its rows.

    Attributes:
        seconds: of one call.
        memory: bytes at its peak above those in use before.
    """

    seconds: Line
    memory: Line

    def batches(self, count: int, batch: int, calls: int = 1) -> float:
        """Seconds for `count` rows, `batch` at a time, each batch in so many calls."""
        whole, rest = divmod(count, batch)
        return calls * (whole * self.seconds.at(batch) + (self.seconds.at(rest) if rest else 0.0))


def call_costs(call: Callable[[int], object], most: int, stand: Benchmark) -> CallCosts:
    """Measures calls of growing numbers of rows, up to `most`, as far as the stand allows."""
    rungs = sorted({min(rows, most) for rows in ROWS})
    gc.collect()
    before = stand.meter.start()
    taken = stand.climb(((rows, lambda rows=rows: [partial(call, rows)]) for rows in rungs), before)
    only = {rows: works[0] for rows, works in taken.items()}
    return CallCosts(line_of(only, lambda work: work.seconds), line_of(only, lambda work: work.peak))
