"""Adding up networks that are asked without learning anything: for pairs, for previews, for an evaluation."""

from dataclasses import dataclass

from unistep.costing.calls import CallCosts
from unistep.evaluation.throughput import measure_latency, measure_throughput


@dataclass
class CostSum:
    """What has been added up so far.

    Attributes:
        evaluations: of networks, one for each row that goes through one.
        seconds: all in all.
        memory: bytes of the largest batch.
    """

    evaluations: int = 0
    seconds: float = 0.0
    memory: float = 0.0

    def ask(self, costs: CallCosts, count: int, batch: int, nfe: int) -> None:
        """`count` samples of `nfe` evaluations each, `batch` at a time."""
        self.evaluations += count * nfe
        self.show(costs, count, batch, nfe)

    def show(self, costs: CallCosts, count: int, batch: int, times: int = 1) -> None:
        """The same, of a network that makes no samples, and so is not counted: a judge."""
        if count:
            self.seconds += costs.batches(count, batch, times)
            self.memory = max(self.memory, costs.memory.at(min(count, batch)))

    def time(self, costs: CallCosts, decode: CallCosts, nfe: int) -> None:
        """A model's latency and throughput, measured as an evaluation does it, on a clock that only pretends."""
        begun = self.seconds

        def make(batch: int) -> None:
            self.ask(costs, batch, batch, nfe)
            self.show(decode, batch, batch)

        measure_latency(make, clock=lambda: self.seconds - begun)
        measure_throughput(make, clock=lambda: self.seconds - begun)


def times_due(every: int | None, steps: int) -> int:
    """How often the loop does in `steps` steps what it does every so many, and at the end."""
    whole, rest = divmod(steps, every) if every else (0, 1)
    return whole + (1 if rest else 0)
