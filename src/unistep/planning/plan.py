"""`plan`: memory, disk, network evaluations and hours of a recipe, before anything runs."""

import gc
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from unistep.costing.benchmark import Benchmark
from unistep.costing.distill import DistillCosts, rehearse_distillation
from unistep.costing.memory import DeviceMemory
from unistep.costing.result import Plan, Resource, Stage
from unistep.costing.teach import TeachCosts, rehearse_teaching
from unistep.costing.training import Setting
from unistep.errors import UserError
from unistep.evaluation.throughput import device_name
from unistep.networks import has_bf16
from unistep.planning.forecast import distill_stages, teach_stages
from unistep.planning.switches import switches
from unistep.planning.table import print_plan
from unistep.recipes.comparison import Budget, CompareRecipe
from unistep.recipes.load import Recipe, RecipeLike, load_recipe
from unistep.recipes.overrides import Overrides, with_flags
from unistep.recipes.schema import DistillRecipe, TeachRecipe
from unistep.run.console import Talk
from unistep.run.hooks import write_picture
from unistep.teachers.teacher import Teacher
from unistep.training.distributed import resolve_device
from unistep.training.tracking import Tracker

SECONDS = 60.0  # for the steps of a training, so that those of a demo are run with its whole batch
ROOM = 0.8  # of the available memory, that measurements may take
GIB = 1 << 30
MOST_GIB = 1 << 30  # an exbibyte

Planned = TeachRecipe | DistillRecipe
Costs = TeachCosts | DistillCosts


def plan(
    recipe: RecipeLike,
    *,
    out: str | Path | None = None,
    overrides: Overrides = (),
    teacher: Teacher | None = None,
    device: str = "auto",
    memory: float | None = None,
    quiet: bool = False,
) -> Plan:
    """What a recipe will take on this machine, from a few real steps at small batches; nothing is kept of them.

    Seconds are those of the machine as busy as it is now. The run's folder is looked into for pairs and features that
    are there already, and left as it is.

    Args:
        recipe: of either kind: built-in name, path, mapping or loaded.
        out: the folder that the run would have; None = runs/<recipe name>.
        overrides: `a.b=c` items or a mapping, see `load_recipe`.
        teacher: your own teacher, instead of the recipe's.
        device: auto, cpu or cuda.
        memory: GiB that it must fit into; None = what is available here.
        quiet: do not print the plan's table, nor what is measured.

    Returns:
        The plan, as numbers; `plan.json()` is its text.

    Raises:
        UserError: for mistakes in recipe, data or teacher.
    """
    if memory is not None and not 0 <= memory <= MOST_GIB:
        raise UserError(f"memory: found {memory:g} GiB, expected 0 to {MOST_GIB:,}")
    resolved = of_one_training(load_recipe(recipe, with_flags(overrides, None, device)))
    where = resolve_device(resolved.training.device)
    load_libraries()
    meter = DeviceMemory(where)
    stand = Benchmark(where, meter, SECONDS, ROOM * meter.available())
    folder = Path(out) if out is not None else Path("runs") / resolved.name
    limit = None if memory is None else round(memory * GIB)
    found = planned(resolved, folder, stand, Talk(quiet), teacher, limit)
    if not quiet:
        print_plan(found)
    return found


def of_one_training(recipe: Recipe) -> Planned:
    """The recipe itself; those of several trainings have a plan for each.

    Raises:
        UserError: saying what to plan instead.
    """
    if isinstance(recipe, CompareRecipe):
        raise UserError(
            f"recipe {recipe.name}: found kind compare, expected teach or distill: a comparison spends its budget, "
            f"{spent(recipe.budget)} for each of its {len(recipe.entries)} entries and {len(recipe.seeds)} "
            f"seeds; for memory and disk plan its base, {recipe.base}"
        )
    if isinstance(recipe, DistillRecipe) and recipe.stages:
        raise UserError(
            f"recipe {recipe.name}: found {len(recipe.stages)} stages, expected one training; plan the stage you ask "
            "about by itself: --set stages=[] --set training.steps=... and what the stage sets"
        )
    return recipe


def spent(budget: Budget) -> str:
    """A budget in words."""
    if budget.minutes is not None:
        return f"{budget.minutes:g} minutes"
    return f"{budget.evaluations:,} network evaluations"


def planned(
    recipe: Planned, folder: Path, stand: Benchmark, say: Talk, teacher: Teacher | None = None, limit: int | None = None
) -> Plan:
    """The plan of a recipe, measured at a stand; see `plan`.

    Args:
        recipe: as resolved.
        folder: that the run would have.
        stand: where to measure.
        say: told what is measured.
        teacher: the caller's own.
        limit: bytes of memory to fit into; None = what is available.
    """
    costs = measured(recipe, teacher, folder, stand, say)
    # A process that has done all this once has loaded whatever a run loads; the teacher is still here.
    gc.collect()
    base = stand.meter.start() - costs.still_held
    available: dict[Resource, int] = {
        "memory": stand.meter.available() if limit is None else limit,
        "disk": shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.is_dir())).free,
    }
    setting = Setting(base=base, beside={}, on_cpu=stand.device.type == "cpu")
    found = Plan(
        recipe=recipe.name,
        device=device_name(stand.device),
        threads=torch.get_num_threads(),
        place=str(folder),
        measured=bool(costs.training.steps),
        networks=costs.training.networks,
        stages=tuple(stages_of(recipe, costs, setting, folder)),
        available=available,
    )
    if found.fits:
        return found

    def needs(changes: Sequence[str], ranks: int) -> Mapping[Resource, int]:
        changed, under = load_recipe(recipe, changes), costs
        assert isinstance(changed, Planned)
        if changed.training.precision != recipe.training.precision:
            under = remeasured(changed, teacher, folder, stand, say)
        stages = stages_of(changed, under, replace(setting, ranks=ranks), folder)
        return replace(found, stages=tuple(stages)).needs

    return replace(found, switches=switches(recipe, needs, available))


def measured(recipe: Planned, teacher: Teacher | None, folder: Path, stand: Benchmark, say: Talk) -> Costs:
    """What a recipe of either kind costs.

    Raises:
        UserError: for a teacher where one is to be taught, or mistakes in the recipe.
    """
    if isinstance(recipe, DistillRecipe):
        return rehearse_distillation(recipe, teacher, folder, stand, say)
    if teacher is not None:
        raise UserError(f"recipe {recipe.name}: found a teacher, expected none: its kind is teach")
    return rehearse_teaching(recipe, stand, say)


def remeasured(recipe: Planned, teacher: Teacher | None, folder: Path, stand: Benchmark, say: Talk) -> Costs:
    """The costs in another precision.

    Raises:
        UserError: where the hardware has it not: emulated, it takes no less memory and far more time.
    """
    if recipe.training.precision == "bf16" and not has_bf16(stand.device):
        raise UserError(f"training.precision: found {recipe.training.precision}, which this hardware does not have")
    return measured(recipe, teacher, folder, stand, say)


def stages_of(recipe: Planned, costs: Costs, setting: Setting, folder: Path) -> list[Stage]:
    """The stages of a recipe, which may be another than the one that was measured in batches, average and the like."""
    if isinstance(recipe, DistillRecipe):
        assert isinstance(costs, DistillCosts)
        return distill_stages(recipe, costs, setting, folder)
    assert isinstance(costs, TeachCosts)
    return teach_stages(recipe, costs, setting)


def load_libraries() -> None:
    """Loads what a run loads on its way, so that it counts as the process's memory and not as some step's.

    That is TensorBoard and matplotlib, and what torch loads with the first optimiser.
    """
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    with tempfile.TemporaryDirectory() as scratch:
        Tracker(Path(scratch), 0).close()
        write_picture(Path(scratch) / "points.png", {"": torch.eye(2)})
