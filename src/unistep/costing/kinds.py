"""The kinds of step in a training, as `training.metering` tells them apart, and how often each comes."""

from collections.abc import Sequence
from dataclasses import dataclass

from unistep.costing.step_cost import Pattern, pattern
from unistep.methods.base import Method, Phase


@dataclass(frozen=True)
class StepKind:
    """Steps that cost the same.

    Attributes:
        phases: that they run, in their order.
        first: the first of them.
        count: how many there are.
    """

    phases: tuple[Phase, ...]
    first: int
    count: int

    @property
    def name(self) -> str:
        """The phases' names, `generator + fake_score`."""
        return " + ".join(phase.name for phase in self.phases)


def kinds_of_steps(method: Method, steps: int) -> Sequence[StepKind]:
    """Every kind among the steps 0..steps - 1, in the order of their first steps; asks the method about each step."""
    first: dict[Pattern, int] = {}
    count: dict[Pattern, int] = {}
    for step in range(steps):
        kind = pattern(method, step)
        first.setdefault(kind, step)
        count[kind] = count.get(kind, 0) + 1
    return [StepKind(method.phases(first[kind]), first[kind], count[kind]) for kind in first]
