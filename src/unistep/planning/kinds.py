"""The kinds of step in a training: which phases run together, and how often."""

from collections.abc import Sequence
from dataclasses import dataclass

from unistep.methods.base import Method, Phase


@dataclass(frozen=True)
class StepKind:
    """Steps that run the same phases.

    Attributes:
        phases: in their order.
        first: the first step of the kind.
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
    first: dict[tuple[Phase, ...], int] = {}
    count: dict[tuple[Phase, ...], int] = {}
    for step in range(steps):
        phases = method.phases(step)
        first.setdefault(phases, step)
        count[phases] = count.get(phases, 0) + 1
    return [StepKind(phases, first[phases], count[phases]) for phases in first]
