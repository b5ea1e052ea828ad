"""What a training will take under given settings, from what was measured under others: arithmetic only."""

from collections.abc import Mapping
from dataclasses import dataclass

from unistep.costing.profile import StepCosts
from unistep.costing.result import Network, Stage, Steps
from unistep.costing.sizes import Sizes
from unistep.costing.tally import CostSum
from unistep.training.config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class TrainingCosts:
    """A training as measured.

    Attributes:
        config: the settings it was measured under.
        sizes: of its networks under these.
        networks: by name, the teacher's among them.
        steps: what each kind of step takes; none where nothing was measured.
    """

    config: TrainingConfig
    sizes: Sizes
    networks: tuple[Network, ...]
    steps: tuple[StepCosts, ...]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where and beside what a training runs.

    Attributes:
        base: bytes of the process without networks.
        beside: what lies in memory besides, by name.
        on_cpu: whether the networks share the memory that checkpoints are serialised in.
        ranks: processes that share a sharded training.
    """

    base: int
    beside: Mapping[str, int]
    on_cpu: bool
    ranks: int = 1


def sizes_under(costs: TrainingCosts, config: TrainingConfig, ranks: int = 1) -> Sizes:
    """The sizes under other settings: without an average, or as one of several ranks holds them."""
    sizes = costs.sizes if config.ema else costs.sizes.without_average()
    return sizes.sharded(ranks) if config.strategy == "fsdp" else sizes


def share_under(costs: TrainingCosts, config: TrainingConfig, ranks: int = 1) -> float:
    """Rows of a micro-batch of one rank, as a share of those of the settings that were measured."""
    measured = costs.config
    return (config.batch / (config.accumulate * ranks)) / (measured.batch / measured.accumulate)


def steps_of(costs: TrainingCosts, config: TrainingConfig) -> tuple[Steps, ...]:
    """The kinds of step with the seconds of each."""
    share = share_under(costs, config)
    return tuple(
        Steps(
            phases=tuple(phase.name for phase in step.kind.phases),
            count=step.kind.count,
            seconds=step.seconds.at(share),
            evaluations=round(step.evaluations.at(share)),
            measured=min(step.largest / share, 1.0),
            depth=max((phase.denoising_step for phase in step.kind.phases), default=0),
        )
        for step in costs.steps
    )


PROCESS = "Python and its libraries"


def network_memory(sizes: Sizes, setting: Setting) -> dict[str, int]:
    """Process, networks and what lies beside, by component."""
    weights = {f"weights: {name}": size for name, size in sizes.networks.items()}
    others = {"weights: networks that follow": sizes.carried, "weights: frozen networks": sizes.frozen}
    return {PROCESS: setting.base, **weights, **others, **setting.beside}


def held_memory(sizes: Sizes, setting: Setting) -> dict[str, int]:
    """What is there between two steps, by component."""
    return {**network_memory(sizes, setting), "Adam's moments": sizes.moments, "average (EMA)": sizes.average}


def step_memory(costs: TrainingCosts, config: TrainingConfig, setting: Setting) -> dict[str, int]:
    """By component, at the highest moment of a step."""
    sizes, share = sizes_under(costs, config, setting.ranks), share_under(costs, config, setting.ranks)
    activations = max((step.activations.at(share) for step in costs.steps), default=0)
    return {**held_memory(sizes, setting), "gradients": sizes.gradients, "activations": round(activations)}


def saving_memory(costs: TrainingCosts, config: TrainingConfig, setting: Setting) -> dict[str, int]:
    """By component, while a checkpoint is written.

    Weights that lie channels-last, and what follows their layout, are copied to be contiguous, one by one and so into
    what the allocator keeps of the steps before; then the writer makes the whole file in the machine's own memory.
    """
    sizes, share = sizes_under(costs, config, setting.ranks), share_under(costs, config, setting.ranks)
    kept = max((step.kept.at(share) for step in costs.steps), default=0)
    copies = sizes.checkpoint if config.channels_last else 0
    return {
        **held_memory(sizes, setting),
        "kept by the allocator": max(round(kept) + sizes.gradients, copies),
        "a checkpoint in the making": sizes.checkpoint if setting.on_cpu else 0,
    }


def checkpoint_disk(costs: TrainingCosts, config: TrainingConfig) -> dict[str, int]:
    """The checkpoints that stay, and the next one while it is written."""
    size = sizes_under(costs, config).checkpoint
    best = config.evaluate_every is not None
    names = f"checkpoints (the last {config.checkpoint.keep}{' and the best' if best else ''})"
    return {names: (config.checkpoint.keep + best) * size, "the next checkpoint, while it is written": size}


def training_stage(name: str, costs: TrainingCosts, config: TrainingConfig, setting: Setting) -> Stage:
    """The stage of a training; its weights are exported at the end."""
    steps = steps_of(costs, config)
    moments = (step_memory(costs, config, setting), saving_memory(costs, config, setting))
    return Stage(
        name=name,
        steps=steps,
        seconds=sum(kind.count * kind.seconds for kind in steps) if steps else None,
        evaluations=sum(kind.count * kind.evaluations for kind in steps) if steps else None,
        memory=max(moments, key=lambda memory: sum(memory.values())),
        disk={**checkpoint_disk(costs, config), "weights": costs.sizes.exported},
    )


def looking_stage(looks: CostSum, costs: TrainingCosts, config: TrainingConfig, setting: Setting) -> Stage:
    """Looking at a training between two steps; the averaged weights take the place of the last ones meanwhile."""
    sizes, share = sizes_under(costs, config, setting.ranks), share_under(costs, config, setting.ranks)
    kept = max((step.kept.at(share) for step in costs.steps), default=0)
    memory = {"weights laid aside": sizes.average, "activations": round(max(kept, looks.memory))}
    return Stage(
        name="previews and figures", evaluations=looks.evaluations, seconds=looks.seconds,
        memory={**held_memory(sizes, setting), **memory}, disk={},
    )  # fmt: skip
