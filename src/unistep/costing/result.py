"""The result of planning: stages with what they take, whether it fits, and what would make it fit."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

Resource = Literal["memory", "disk"]


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network of the run.

    Attributes:
        name: as the method calls it; `teacher` for the one that is learnt from.
        parameters: how many.
        learns: whether it is trained.
    """

    name: str
    parameters: int
    learns: bool


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Steps of a training that run the same phases.

    Attributes:
        phases: their names.
        count: how many steps.
        seconds: of one.
        evaluations: of networks, in one.
        measured: share of the batch that such steps were run with at most; below 1 the rest is extrapolated.
        depth: how many of its steps the generator takes before the one that learns.
    """

    phases: tuple[str, ...]
    count: int
    seconds: float
    evaluations: int
    measured: float = 1.0
    depth: int = 0


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the run.

    Attributes:
        name: what is done.
        evaluations: of networks, one for each row that goes through a network; None if it was not measured.
        seconds: None if it was not measured.
        memory: component -> bytes at the stage's highest moment.
        disk: what is written -> bytes.
        steps: of a training, by kind; none if they were not measured.
    """

    name: str
    evaluations: int | None = 0
    seconds: float | None = 0.0
    memory: Mapping[str, int]
    disk: Mapping[str, int]
    steps: tuple[Steps, ...] = ()

    @property
    def peak(self) -> int:
        """Bytes of memory at its highest moment."""
        return sum(self.memory.values())


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A change of the recipe that takes less.

    Attributes:
        set: the values to change, as `--set` takes them.
        ranks: processes, each with memory of its own; 1 unless the change needs several.
        resource: what it saves.
        saves: bytes, in each process.
        fits: whether the run fits with it.
        changes: what else it changes.
    """

    set: tuple[str, ...]
    ranks: int = 1
    resource: Resource
    saves: int
    fits: bool
    changes: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a recipe will take.

    Attributes:
        recipe: its name.
        device: readable.
        threads: that torch computes with.
        place: where the run would be written.
        measured: false where the networks alone do not fit: then memory is a lower bound, and nothing was run.
        networks: of the run.
        stages: in their order.
        available: bytes that there are.
        switches: what would make it fit, if it does not.
    """

    recipe: str
    device: str
    threads: int
    place: str
    measured: bool
    networks: tuple[Network, ...]
    stages: tuple[Stage, ...]
    available: Mapping[Resource, int]
    switches: tuple[Suggestion, ...] = ()

    @property
    def highest(self) -> Stage:
        """The stage that needs most memory."""
        return max(self.stages, key=lambda stage: stage.peak)

    @property
    def needs(self) -> dict[Resource, int]:
        """Bytes of memory at the highest moment, and of disk at most."""
        return {"memory": self.highest.peak, "disk": sum(sum(stage.disk.values()) for stage in self.stages)}

    @property
    def fits(self) -> bool:
        """Whether there is enough of both."""
        return all(self.needs[resource] <= self.available[resource] for resource in self.needs)

    @property
    def evaluations(self) -> int | None:
        """Of networks, in total."""
        parts = [stage.evaluations for stage in self.stages]
        return sum(part for part in parts if part is not None) if self.measured else None

    @property
    def seconds(self) -> float | None:
        """In total."""
        parts = [stage.seconds for stage in self.stages]
        return sum(part for part in parts if part is not None) if self.measured else None

    def json(self) -> str:
        """All of it, with the totals, as JSON."""
        totals = {"needs": self.needs, "fits": self.fits, "evaluations": self.evaluations, "seconds": self.seconds}
        return json.dumps({**asdict(self), **totals}, indent=1)
