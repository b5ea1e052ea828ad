"""Real steps at small batches, on networks that are thrown away: seconds, memory and evaluations of a training."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from torch import nn

from unistep.costing.benchmark import Benchmark, Measurement, Work, line_of
from unistep.costing.kinds import StepKind, kinds_of_steps
from unistep.costing.line import Line
from unistep.costing.step_cost import EvaluationCount, counted
from unistep.methods.base import Method
from unistep.training.batches import BatchSource
from unistep.training.config import TrainingConfig
from unistep.training.health import HealthMonitor
from unistep.training.state import TrainState
from unistep.training.step import train_step

DIVISORS = (8, 4, 2, 1)  # of the batch, tried one after the other


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training that is to come, as the loop would be given it.

    Attributes:
        method: with networks that nobody needs afterwards.
        batches: settings -> the batches of a training with these settings.
        config: the settings.
        asked: networks besides the method's own whose evaluations count: the teacher's.
    """

    method: Method
    batches: Callable[[TrainingConfig], BatchSource]
    config: TrainingConfig
    asked: Sequence[nn.Module] = ()


@dataclass(frozen=True)
class StepCosts:
    """What steps of one kind cost, each as a line over the share of the batch.

    Attributes:
        kind: of step.
        seconds: of one step.
        activations: bytes at its peak above those that are there from step to step, the allocator's and the kernels'
            own among them.
        kept: bytes of these that the allocator does not give back.
        evaluations: of networks in one step, as `training.metering` counts them, backward passes included.
        largest: share of the batch that steps were run with at most.
    """

    kind: StepKind
    seconds: Line
    activations: Line
    kept: Line
    evaluations: Line
    largest: float


def profile_steps(training: Training, floor: int, stand: Benchmark) -> list[StepCosts]:
    """Runs steps of each kind at growing batches, as far as the stand allows, and draws lines through what they took.

    The steps are the loop's own, with accumulation, optimiser and average. Nothing is written.

    Args:
        training: what to rehearse.
        floor: bytes in use from step to step.
        stand: where.
    """
    kinds = kinds_of_steps(training.method, training.config.steps)
    state = TrainState.start(training.method, training.config, HealthMonitor(steps=training.config.steps))
    counts: dict[tuple[float, int], float] = {}

    def works(share: float, config: TrainingConfig) -> list[Work]:
        source = training.batches(config)

        def step(kind: StepKind) -> None:
            state.step, known = kind.first, (share, kind.first) in counts
            with nullcontext(EvaluationCount()) if known else counted(networks) as tally:
                train_step(state, source, config, stand.device)
            counts.setdefault((share, kind.first), tally.evaluations)

        return [partial(step, kind) for kind in kinds]

    networks = [*training.asked, *training.method.networks.values(), *training.method.auxiliary_networks.values()]
    rungs = ((share, partial(works, share, config)) for share, config in shares(training.config))
    taken = stand.climb(rungs, floor)
    return [
        costs(kind, {share: works[i] for share, works in taken.items()}, {s: counts[s, kind.first] for s in taken})
        for i, kind in enumerate(kinds)
    ]


def shares(config: TrainingConfig) -> Iterator[tuple[float, TrainingConfig]]:
    """Growing shares of the batch, and the settings that make steps of that size: a single row, two, ... all."""
    micro = config.batch // config.accumulate
    for rows in sorted({1, min(2, micro), *(max(micro // divisor, 1) for divisor in DIVISORS)}):
        pair_batch = config.pair_batch and max(config.pair_batch * rows // config.batch, 1) * config.accumulate
        yield rows / micro, config.model_copy(update={"batch": rows * config.accumulate, "pair_batch": pair_batch})


def costs(kind: StepKind, taken: dict[float, Measurement], evaluations: dict[float, float]) -> StepCosts:
    """The lines through what was measured."""
    return StepCosts(
        kind,
        seconds=line_of(taken, lambda work: work.seconds),
        activations=line_of(taken, lambda work: work.peak),
        kept=line_of(taken, lambda work: work.kept),
        evaluations=Line.through(evaluations),
        largest=max(taken),
    )
