"""How long an entry of a comparison may train: the longest training whose pairs and steps fit the budget."""

import dataclasses
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from unistep.costing.step_cost import COUNTING, Pattern, StepCost, counted, measure_step, pattern
from unistep.costing.synthetic_batches import synthetic_batches
from unistep.errors import UserError
from unistep.io.atomic import atomic_write
from unistep.io.text_files import read_json
from unistep.methods.base import Method
from unistep.methods.inputs import MethodInputs
from unistep.pairs.solve import TileSolver
from unistep.pairs.store import covering_shards
from unistep.recipes.comparison import Budget
from unistep.recipes.load import recipe_from_values
from unistep.recipes.schema import DistillRecipe
from unistep.recipes.sections import PairsConfig, SolverConfig
from unistep.run.distill import build_method_inputs
from unistep.run.folder import settings
from unistep.run.pairs import sampler_of
from unistep.run.solver_choice import CachedChoice
from unistep.run.teacher import StudentInit, apply_lora

LONGEST = 10**8  # steps; nobody trains longer
TIMED = 3  # steps, and tiles of pairs, that a budget of minutes is planned from


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an entry does with its budget.

    Attributes:
        steps: of the training.
        step_evaluations, pair_evaluations: network evaluations of training and pairs, see `training.metering`; the
            choice of the pairs' solver counts with them.
        pair_rows: pairs that are made for it.
        memory: bytes at the peak of the metered steps, None where nobody counts.
        made_for: hash of recipe, teacher, budget and the choice's evaluations.
        choice_seconds: that the choice of the solver took.
    """

    steps: int
    step_evaluations: int
    pair_evaluations: int
    pair_rows: int
    memory: int | None
    made_for: str
    choice_seconds: float = 0.0

    @property
    def evaluations(self) -> int:
        """All of them."""
        return self.step_evaluations + self.pair_evaluations


def plan_entry(
    recipe: DistillRecipe, budget: Budget, start: StudentInit, device: torch.device, folder: Path, name: str,
    kept: CachedChoice | None = None,
) -> Plan:  # fmt: skip
    """The plan of an entry, made once and kept in `folder`: what was timed is not timed again.

    Each set of facts has a file of its own, so that going back to earlier settings finds the earlier plan.

    Args:
        recipe: of the entry, its pairs' solver a named one.
        budget: what it may spend.
        start: teacher and network.
        device: where both are.
        folder: where plans are kept.
        name: of the entry.
        kept: the choice of its pairs' solver, which it is charged with.

    Raises:
        UserError: for a budget that does not even pay for the pairs and a first step.
    """
    choice = [kept.choice.spent] if kept else []
    key = json.dumps(
        [COUNTING, settings(recipe), budget.model_dump(), start.teacher.sha256, str(device), *choice], sort_keys=True
    )
    made_for = hashlib.sha256(key.encode()).hexdigest()
    file = folder / f"{name}-{made_for[:8]}.json"
    if file.is_file() and (known := read_plan(file)).made_for == made_for:
        return known
    meter = EntryProfiler(recipe, start, device, timed=TIMED if budget.minutes is not None else 0, kept=kept)
    plan = meter.plan(budget, made_for)
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(file, (json.dumps(asdict(plan), indent=2) + "\n").encode())
    return plan


def read_plan(file: Path) -> Plan:
    """What `plan_entry` wrote.

    Raises:
        UserError: if it is damaged.
    """
    try:
        return Plan(**read_json(file, "delete it"))
    except (ValueError, TypeError) as error:
        raise UserError(f"{file}: no readable plan ({error}); delete this one file, it is made anew") from error


def with_num_steps(recipe: DistillRecipe, steps: int) -> DistillRecipe:
    """The recipe with a training of another length; its milestones keep their share of it, rounded down.

    Raises:
        UserError: for a length too short for the method.
    """
    values, written_for = recipe.model_dump(mode="json"), recipe.training.steps
    values["training"]["steps"] = steps
    for name in type(recipe.method).milestones:
        if values["method"][name] is not None:
            values["method"][name] = values["method"][name] * steps // written_for
    moved = recipe_from_values(values, recipe.name)
    assert isinstance(moved, DistillRecipe)
    return moved


def max_affordable_steps(cost: Callable[[int], float | None], budget: float) -> int | None:
    """The largest number of steps that costs at most `budget`; None if there is none.

    Args:
        cost: of a number of steps, growing; None for a training too short to be one.
        budget: what may be spent.
    """

    def fits(steps: int) -> bool:
        return (spent := cost(steps)) is None or spent <= budget

    low, high = 0, 1
    while fits(high) and high < LONGEST:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low if low > 0 and cost(low) is not None else None


class EntryProfiler:
    """Measures what an entry's pairs and steps cost: one step of each pattern of phases, when it is first met.

    Args:
        recipe: of the entry, at the length that it is written for.
        start: teacher and network.
        device: where both are.
        timed: repetitions that are timed; 0 = evaluations alone are counted.
        kept: the choice of the pairs' solver, which counts with the pairs.
    """

    def __init__(
        self,
        recipe: DistillRecipe,
        start: StudentInit,
        device: torch.device,
        timed: int = 0,
        kept: CachedChoice | None = None,
    ):
        start = apply_lora(recipe, start)
        self.recipe, self.start, self.device, self.timed = recipe, start, device, timed
        plain = recipe.training.model_copy(update={"compile": False})
        self.inputs = build_method_inputs(recipe.model_copy(update={"training": plain}), start, device)
        outline = start.copy()  # where only the phases are asked for, all networks are this one
        self.shared = outline if recipe.lora else outline.cpu()  # adapters would take the teacher's weights along
        self.kept = kept
        self.costs: dict[Pattern, StepCost] = {}
        self.spent: dict[int, tuple[float, float] | None] = {}

    def plan(self, budget: Budget, made_for: str) -> Plan:
        """The longest training within a budget.

        Raises:
            UserError: if there is none.
        """
        rows, pair_evaluations, pair_seconds = self.pairs()
        in_time = budget.minutes is not None
        total = 60 * budget.minutes if budget.minutes is not None else float(budget.evaluations or 0)
        left = total - (pair_seconds if in_time else pair_evaluations)
        steps = max_affordable_steps(lambda n: None if (spent := self.training(n)) is None else spent[in_time], left)
        spent = self.training(steps) if steps else None
        if steps is None or spent is None:
            unit, pairs = ("minutes", pair_seconds / 60) if in_time else ("evaluations", pair_evaluations)
            raise UserError(
                f"budget.{unit}: found {total / 60 if in_time else total:g}, expected more for {self.recipe.name}: its "
                f"pairs take {pairs:g} and the shortest training comes on top; raise the budget or lower pairs.count"
            )
        memory = [cost.memory for cost in self.costs.values() if cost.memory is not None]
        return Plan(
            steps=steps, step_evaluations=round(spent[0]), pair_evaluations=pair_evaluations, pair_rows=rows,
            memory=max(memory, default=None), made_for=made_for, choice_seconds=self.kept.seconds if self.kept else 0.0,
        )  # fmt: skip

    def training(self, steps: int) -> tuple[float, float] | None:
        """Evaluations and seconds of a training of that many steps; None if it is too short to be one."""
        if steps not in self.spent:
            try:
                recipe = with_num_steps(self.recipe, steps)
            except UserError:
                recipe = None
            self.spent[steps] = None if recipe is None else self.sum_of(recipe)
        return self.spent[steps]

    def sum_of(self, recipe: DistillRecipe) -> tuple[float, float]:
        """Evaluations and seconds of a training, its patterns measured as far as they are new."""
        outline = recipe.method.build(self.method_inputs(recipe, own_networks=False))
        found, first = Counter[Pattern](), dict[Pattern, int]()
        for step in range(recipe.training.steps):
            shape = pattern(outline, step)
            found[shape] += 1
            first.setdefault(shape, step)
        for shape in found.keys() - self.costs.keys():
            self.costs[shape] = self.measured(recipe, first[shape])
        costs = [(count, self.costs[shape]) for shape, count in found.items()]
        return sum(n * c.evaluations for n, c in costs), sum(n * (c.seconds or 0.0) for n, c in costs)

    def measured(self, recipe: DistillRecipe, step: int) -> StepCost:
        """One step of a training."""

        def build() -> Method:
            return recipe.method.build(self.method_inputs(recipe, own_networks=True))

        batches = synthetic_batches(recipe, self.start.teacher, self.device)
        denoiser = self.start.teacher.denoiser
        return measure_step(build, denoiser, batches, recipe.training, self.device, step, self.timed)

    def method_inputs(self, recipe: DistillRecipe, own_networks: bool) -> MethodInputs:
        """What the method is built from at this length; with networks of its own it can be trained."""
        inputs = dataclasses.replace(self.inputs, steps=recipe.training.steps)
        if own_networks:
            return inputs
        return dataclasses.replace(inputs, copy=lambda: self.shared, prepare=lambda network: network)

    def pairs(self) -> tuple[int, int, float]:
        """Rows, evaluations and seconds of the pairs, whole shards as they are made; nothing where none are needed.

        The choice of their solver is counted in.
        """
        config, teacher = self.recipe.pairs, self.start.teacher
        if config is None or not self.recipe.method.needs_pairs:
            return 0, 0, 0.0
        assert isinstance(config.solver, SolverConfig)  # see `Shared.with_solver`
        solver = TileSolver(teacher, sampler_of(config.solver), self.recipe.teacher.guidance, config.dtype, self.device)
        rows = rows_made(config)
        with counted([teacher.denoiser]) as tally:
            solver(config.first_seed, 1)
        started = time.perf_counter()
        for _ in range(self.timed):
            solver(config.first_seed, config.tile)
        seconds = (time.perf_counter() - started) / max(1, self.timed)
        spent, took = (self.kept.choice.spent, self.kept.seconds) if self.kept else (0, 0.0)
        return rows, rows * round(tally.evaluations) + spent, rows / config.tile * seconds + took


def rows_made(config: PairsConfig) -> int:
    """Pairs that are made for a request: whole tiles."""
    return config.tile * len(covering_shards(config.first_seed, config.count, config.tile))
