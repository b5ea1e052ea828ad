"""Measuring a training, or a network that is only asked, if there is room for it; otherwise its sizes."""

import gc
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Tensor, nn

from unistep.costing.benchmark import Benchmark
from unistep.costing.calls import CallCosts, call_costs
from unistep.costing.kinds import kinds_of_steps
from unistep.costing.profile import Training, profile_steps
from unistep.costing.result import Network
from unistep.costing.sizes import allocated, sizes_of
from unistep.costing.training import TrainingCosts
from unistep.methods.base import Method
from unistep.networks.meta import is_on_meta
from unistep.networks.preconditioning import count_parameters
from unistep.teachers.teacher import Teacher
from unistep.training.batches import BatchSource, rows_per_shard
from unistep.training.config import TrainingConfig
from unistep.training.loop import deterministic
from unistep.training.optim import check_names
from unistep.training.random import Shard
from unistep.types import to_device

META = torch.device("meta")
MOST_ROWS = 256  # that a network is asked about at once, however large the batch


def rehearse_training(
    build: Callable[[torch.device], Method],
    batches: Callable[[TrainingConfig], BatchSource],
    config: TrainingConfig,
    stand: Benchmark,
    announce: Callable[[], object],
    frozen: Mapping[str, nn.Module] = MappingProxyType({}),
) -> tuple[TrainingCosts, Method]:
    """Measures a training, if what it holds from step to step leaves room for steps.

    Args:
        build: the method on a device; on the meta device, which comes first, it must allocate nothing.
        batches: settings -> the batches of a training with these settings.
        config: the settings.
        stand: where.
        announce: called when the settings have been found right and measuring begins, which takes a while.
        frozen: networks by name that are in memory already; evaluations of one called `teacher` count.

    Returns:
        The costs (without steps if there is no room) and the method (then on the meta device).

    Raises:
        UserError: for settings that do not fit the method.
    """
    require_whole_parts(config)
    shapes = build(META)
    check_names(config.optim, shapes.networks)
    sizes = sizes_of(shapes, config, kinds_of_steps(shapes, config.steps), frozen.values())
    unmeasured = TrainingCosts(config=config, sizes=sizes, networks=networks_of(shapes, frozen), steps=())
    gc.collect()
    floor = stand.meter.start() + sizes.held - sum(map(allocated, frozen.values()))
    if floor > stand.memory or any(map(is_on_meta, frozen.values())):
        return unmeasured, shapes
    announce()
    method = build(stand.device)
    asked = [network for name, network in frozen.items() if name == "teacher"]
    with deterministic(config.deterministic):
        steps = profile_steps(Training(method=method, batches=batches, config=config, asked=asked), floor, stand)
    return replace(unmeasured, steps=tuple(steps)), method


def require_whole_parts(config: TrainingConfig) -> None:
    """Refuses batches that accumulation does not cut into whole rows, as the loop does when it meets them."""
    rows_per_shard("training.batch", config.batch, Shard(0, config.accumulate))
    rows_per_shard("training.pair_batch", config.pair_batch or config.batch, Shard(0, config.accumulate))


def networks_of(method: Method, frozen: Mapping[str, nn.Module]) -> tuple[Network, ...]:
    """The frozen networks, those that learn, and those that follow them."""
    named = {**frozen, **method.networks, **method.auxiliary_networks}
    return tuple(
        Network(name=name, parameters=count_parameters(network), learns=name in method.networks)
        for name, network in named.items()
    )


def ask(teacher: Teacher, stand: Benchmark) -> CallCosts:
    """One evaluation of a teacher's network, at some time and under some condition."""

    def call(rows: int) -> object:
        x = noise(rows, teacher).to(stand.device)
        t = teacher.process.time(torch.full((rows,), 0.5)).to(stand.device)
        cond = teacher.conditioner.from_seeds(torch.arange(rows)) if teacher.conditioner else None
        return teacher(x, t, to_device(cond, stand.device))

    return call_costs(call, MOST_ROWS, stand)


def decode(teacher: Teacher, stand: Benchmark) -> CallCosts:
    """What turns samples into what is looked at, which for latents is a VAE."""
    return call_costs(lambda rows: teacher.codec.decode(noise(rows, teacher).to(stand.device)).cpu(), MOST_ROWS, stand)


def noise(rows: int, teacher: Teacher) -> Tensor:
    """[rows, *dims], the same every time; the global random state is left alone."""
    return torch.randn(rows, *teacher.shape, generator=torch.Generator().manual_seed(0))
