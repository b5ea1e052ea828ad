"""The arithmetic of a plan: stages from measured lines, samples added up, switches tried."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from tiny_plan import settings

from unistep.costing.calls import CallCosts
from unistep.costing.kinds import StepKind
from unistep.costing.line import Line
from unistep.costing.profile import StepCosts
from unistep.costing.result import Plan, Resource, Stage
from unistep.costing.sizes import Sizes
from unistep.costing.tally import CostSum
from unistep.costing.training import Setting, TrainingCosts, step_memory, training_stage
from unistep.errors import UserError
from unistep.evaluation.throughput import measure_latency, measure_throughput
from unistep.planning.switches import switches
from unistep.recipes import load_recipe
from unistep.training import TrainingConfig

SIZES = Sizes(
    networks={"generator": 400, "fake_score": 300}, carried=90, frozen=200, gradients=350, moments=1200, average=380,
    tensors=10, averaged_tensors=3, exported=400,
)  # fmt: skip
HERE = Setting(base=1000, beside={}, on_cpu=True)
DECODE = CallCosts(seconds=Line(0, 0.2), memory=Line(1, 0))
CALL = CallCosts(seconds=Line(0.5, 0.1), memory=Line(10, 2))


def costs(config: TrainingConfig) -> TrainingCosts:
    """Two kinds of step of 3 and 9 steps, whose activations are proportional to the batch."""
    steps = tuple(
        StepCosts(
            StepKind(phases=(), first=first, count=count),
            seconds=Line(1, seconds), activations=Line(0, activations), kept=Line(0, 0), evaluations=Line(0, 64),
            largest=0.5,
        )
        for first, count, seconds, activations in ((0, 3, 1, 8000), (3, 9, 4, 6000))
    )  # fmt: skip
    return TrainingCosts(config=config, sizes=SIZES, networks=(), steps=steps)


def peak(config: TrainingConfig, measured: TrainingConfig, **setting: object) -> int:
    return sum(step_memory(costs(measured), config, replace(HERE, **setting)).values())  # type: ignore[arg-type]


def test_a_training_takes_what_its_kinds_of_step_take() -> None:
    stage = training_stage("training", costs(settings()), settings(), HERE)
    assert stage.seconds == 3 * 2 + 9 * 5
    assert stage.evaluations == 12 * 64
    assert stage.memory["activations"] == 8000
    assert stage.peak == 1000 + SIZES.held + 8000


@pytest.mark.parametrize(("change", "activations"), [({"accumulate": 4}, 2000), ({"batch": 8}, 4000)])
def test_smaller_parts_have_smaller_activations(change: dict[str, int], activations: int) -> None:
    assert peak(settings(**change), settings()) == 1000 + SIZES.held + activations


def test_ranks_share_batch_and_networks() -> None:
    alone, shared = peak(settings(), settings()), peak(settings(strategy="fsdp"), settings(), ranks=2)
    assert alone - shared == 4000 + (SIZES.held - SIZES.frozen) / 2


def test_without_an_average_its_bytes_are_gone_from_memory_and_checkpoints() -> None:
    with_it, without = (training_stage("", costs(settings()), settings(**c), HERE) for c in ({}, {"ema": None}))
    assert with_it.peak - without.peak == SIZES.average
    assert sum(with_it.disk.values()) - sum(without.disk.values()) == 3 * (SIZES.average + 3 * 300)


@pytest.mark.parametrize(("keep", "evaluate_every", "kept"), [(1, None, 1), (3, None, 3), (2, 5, 3)])
def test_the_last_checkpoints_and_the_best_stay_while_one_more_is_written(
    keep: int, evaluate_every: int | None, kept: int
) -> None:
    config = settings(checkpoint={"keep": keep}, evaluate_every=evaluate_every)
    disk = training_stage("", costs(config), config, HERE).disk
    assert sum(disk.values()) == (kept + 1) * SIZES.checkpoint + SIZES.exported


def test_saving_is_the_highest_moment_of_a_large_network_at_a_small_batch() -> None:
    few = replace(costs(settings()), steps=())
    assert training_stage("", few, settings(channels_last=True), HERE).memory["a checkpoint in the making"] > 0


# ----------------------------------------------------------------------------------------------------------- samples


@pytest.mark.parametrize("count", [1, 7, 8, 9, 24])
def test_samples_cost_what_their_batches_cost(count: int) -> None:
    tally = CostSum()
    tally.ask(CALL, count, 8, nfe=5)
    batches = [min(8, count - first) for first in range(0, count, 8)]
    assert tally.seconds == pytest.approx(sum(5 * (0.5 + 0.1 * rows) for rows in batches))
    assert tally.evaluations == 5 * count
    assert tally.memory == 10 + 2 * max(batches)


def test_timing_a_model_takes_as_long_as_the_model_is_slow() -> None:
    now, made = 0.0, list[int]()

    def make(batch: int) -> None:
        nonlocal now
        now += 3 * (0.5 + 0.1 * batch) + 0.2 * batch
        made.append(batch)

    measure_latency(make, clock=lambda: now)
    measure_throughput(make, clock=lambda: now)
    tally = CostSum()
    tally.time(CALL, DECODE, nfe=3)
    assert (tally.seconds, tally.evaluations) == (pytest.approx(now), 3 * sum(made))


# ---------------------------------------------------------------------------------------------------------- switches


def needs_of(memory: dict[str, int], disk: dict[str, int] | None = None):
    def needs(overrides: Sequence[str], ranks: int) -> Mapping[Resource, int]:
        (name,) = overrides or ("",)
        if name == "training.accumulate=2":
            raise UserError("no")
        name = f"{name} x{ranks}" if ranks > 1 else name
        return {"memory": memory.get(name, memory[""]), "disk": (disk or {}).get(name, 100)}

    return needs


MEMORY = {
    "": 1000, "training.accumulate=2": 1, "training.accumulate=4": 700, "training.accumulate=8": 600,
    "training.accumulate=16": 500, "training.strategy=fsdp x2": 900, "training.strategy=fsdp x4": 800,
    "training.ema=null": 950, "training.batch=64": 1000,
}  # fmt: skip


def test_the_least_turn_that_fits_is_offered_or_else_the_furthest() -> None:
    found = switches(load_recipe("fashion-mnist"), needs_of(MEMORY), {"memory": 650, "disk": 100})
    assert [(switch.set, switch.ranks, switch.saves, switch.fits) for switch in found] == [
        (("training.accumulate=8",), 1, 400, True),
        (("training.strategy=fsdp",), 4, 200, False),
        (("training.ema=null",), 1, 50, False),
    ]


def test_where_no_turn_is_enough_several_together_may_be() -> None:
    """On two knobs of which each saves a third; ranks are not counted on."""
    saves = {"training.ema=null": 300, "pairs.tile=50": 350}

    def needs(overrides: Sequence[str], ranks: int) -> Mapping[Resource, int]:
        if ranks > 1:
            return {"memory": 800, "disk": 0}
        return {"memory": 1000 - sum(saves.get(override, 0) for override in overrides), "disk": 0}

    *alone, both = switches(load_recipe("fashion-mnist"), needs, {"memory": 400, "disk": 0})
    assert len(alone) == 3 and not any(switch.fits for switch in alone)
    assert (set(both.set), both.saves, both.fits) == (set(saves), 650, True)
    assert not any(s.fits for s in switches(load_recipe("fashion-mnist"), needs, {"memory": 300, "disk": 0}))


def test_only_what_is_short_is_saved() -> None:
    disk = {"": 100, "pairs.dtype=float16": 60, "training.ema=null": 90, "training.checkpoint.keep=1": 70}
    found = switches(load_recipe("fashion-mnist"), needs_of(MEMORY, disk), {"memory": 2000, "disk": 80})
    assert {(switch.set[0], switch.saves, switch.fits) for switch in found} == {
        ("training.ema=null", 10, False), ("training.checkpoint.keep=1", 30, True), ("pairs.dtype=float16", 40, True),
    }  # fmt: skip
    assert {switch.resource for switch in found} == {"disk"}


@pytest.mark.parametrize("name", ["fashion-mnist", "digits", "gaussians", "digits-teacher"])
def test_every_switch_is_a_recipe(name: str) -> None:
    tried = list[Sequence[str]]()

    def needs(overrides: Sequence[str], ranks: int) -> Mapping[Resource, int]:
        tried.append(overrides)
        return {"memory": 1000, "disk": 1000}

    recipe = load_recipe(name)
    assert switches(recipe, needs, {"memory": 1, "disk": 1}) == ()
    assert len(tried) > 10
    for overrides in tried:
        changed = load_recipe(recipe, overrides)
        assert (changed == recipe) == (not overrides)


def test_a_plan_fits_if_its_highest_stage_and_all_its_files_do() -> None:
    stages = tuple(
        Stage(name=name, memory={"process": 5, "activations": taken}, disk={"files": 10}, evaluations=1, seconds=2.0)
        for name, taken in (("pairs", 10), ("training", 30), ("evaluation", 20))
    )
    plan = Plan(
        recipe="r", device="CPU", threads=1, place="runs/r", measured=True, networks=(), stages=stages,
        available={"memory": 35, "disk": 30},
    )  # fmt: skip
    assert plan.fits and plan.highest.name == "training"
    assert plan.needs == {"memory": 35, "disk": 30}
    assert (plan.evaluations, plan.seconds) == (3, 6.0)
    for short in ({"memory": 34, "disk": 30}, {"memory": 35, "disk": 29}):
        assert not replace(plan, available=short).fits  # type: ignore[arg-type]
