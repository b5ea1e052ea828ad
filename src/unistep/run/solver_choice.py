"""`solver: auto` of a recipe's pairs: chosen once, said, and kept in a file, so that what goes on goes on with it."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from unistep.errors import UserError
from unistep.io.atomic import atomic_write
from unistep.io.progress import show_waiting
from unistep.io.text_files import read_json
from unistep.pairs.choice import (
    Candidate,
    Choice,
    Probe,
    choose_solver,
    compatible_solvers,
    in_words,
    most_spent,
    trials,
    unreached,
)
from unistep.pairs.facts import plain, require_facts
from unistep.pairs.manifest import MANIFEST, read_manifest
from unistep.pairs.solve import fixed_kernels
from unistep.recipes.schema import DistillRecipe
from unistep.recipes.sections import AutoSolverConfig, PairsConfig, SolverConfig
from unistep.run.console import Talk
from unistep.teachers.teacher import Teacher

FILE = "solver.json"  # in the folder of pairs
FORMAT = "unistep.solver-choice.v1"


@dataclass(frozen=True)
class CachedChoice:
    """A choice as it is kept.

    Attributes:
        asked: what it depends on, see `question`.
        choice: what was found.
        seconds: that it took.
    """

    asked: Mapping[str, Any]
    choice: Choice
    seconds: float

    @property
    def solver(self) -> SolverConfig:
        """The chosen solver, as a recipe names it."""
        return solver_config(self.choice.chosen.solver)

    def json(self) -> dict[str, Any]:
        """Plain values; an infinite error is null."""
        tried = [finite(asdict(trial)) for trial in self.choice.tried]
        return plain({"asked": self.asked, "choice": {**asdict(self.choice), "tried": tried}, "seconds": self.seconds})

    def __str__(self) -> str:
        """In one line: solver, evaluations, error, reference, probe and what it took."""
        found, tolerance = self.choice, self.asked["settings"]["tolerance"]
        return (
            f"solver auto: {in_words(found.chosen)}, error {found.chosen.error:.4f} (tolerance {tolerance:g}) against "
            f"{in_words(found.reference)}, on seeds {found.first_seed}..{found.first_seed + found.seeds - 1}; the "
            f"choice took {found.spent:,} network evaluations"
        )


def find_choice(
    config: AutoSolverConfig, recipe: DistillRecipe, teacher: Teacher, file: Path, device: torch.device, say: Talk
) -> CachedChoice:
    """The choice in `file` if it answers the same question; otherwise it is made, and kept there.

    Args:
        config: the pairs' solver.
        recipe: whose pairs and guidance it is for.
        teacher: the teacher; its denoiser is moved to `device`.
        file: where it is kept; in a folder with pairs, these must be of the chosen solver.
        device: where to solve.
        say: told what was chosen.

    Raises:
        UserError: for a tolerance that cannot be kept to, pairs made another way, or a damaged file.
    """
    asked = question(config, recipe, teacher)
    known = read_choice(file) if file.is_file() else None
    if known is not None and known.asked == asked:
        say(str(known))
        return known
    say(f"choosing a solver on {config.probe} seeds of {teacher.source}")
    with show_waiting("choosing a solver", say.shows):
        kept = chosen_now(config, recipe, teacher, device, asked)
    if (file.parent / MANIFEST).exists():
        solver = {"solver": kept.choice.sampler.config()}
        require_facts(read_manifest(file.parent)["facts"], solver, file.parent / MANIFEST)
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, (json.dumps({"format": FORMAT, **kept.json()}, indent=1) + "\n").encode())
    say(str(kept))
    return kept


def question(config: AutoSolverConfig, recipe: DistillRecipe, teacher: Teacher) -> dict[str, Any]:
    """What a choice depends on."""
    assert recipe.pairs is not None
    return {
        "settings": config.model_dump(mode="json"),
        "first_seed": recipe.pairs.first_seed,
        "guidance": recipe.teacher.guidance,
        "teacher": teacher.sha256,
    }


def chosen_now(
    config: AutoSolverConfig, recipe: DistillRecipe, teacher: Teacher, device: torch.device, asked: Mapping[str, Any]
) -> CachedChoice:
    """The choice, made now."""
    assert recipe.pairs is not None
    first, started = recipe.pairs.first_seed, time.perf_counter()
    seeds = range(first, first + config.probe)
    probe = Probe(teacher, recipe.teacher.guidance, seeds, recipe.pairs.tile, device)
    with fixed_kernels(torch.get_num_threads()):
        choice = choose_solver(
            probe, tolerance=config.tolerance, candidates=candidates(config, teacher), evaluations=config.evaluations
        )
    return CachedChoice(asked, choice, time.perf_counter() - started)


def candidates(config: AutoSolverConfig, teacher: Teacher) -> tuple[str, ...]:
    """Those that the recipe names, or all that suit the process."""
    return config.candidates or tuple(compatible_solvers(teacher.process))


def read_choice(file: Path) -> CachedChoice:
    """What `find_choice` wrote.

    Raises:
        UserError: if it is damaged.
    """
    try:
        found = read_json(file, "delete it")
        if found.pop("format") != FORMAT:
            raise ValueError(f"no {FORMAT}")
        choice = found.pop("choice")
        chosen, reference = trial_of(choice.pop("chosen")), trial_of(choice.pop("reference"))
        tried = tuple(trial_of(trial) for trial in choice.pop("tried"))
        return CachedChoice(choice=Choice(chosen=chosen, reference=reference, tried=tried, **choice), **found)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{file}: no readable choice ({error}); delete this one file, it is made anew") from error


def finite(trial: dict[str, Any]) -> dict[str, Any]:
    """Plain values without infinity, which JSON lacks."""
    return {**trial, "error": trial["error"] if math.isfinite(trial["error"]) else None}


def trial_of(found: dict[str, Any]) -> Candidate:
    """What `finite` made plain."""
    return Candidate(**{**found, "error": math.inf if found["error"] is None else found["error"]})


def solver_config(found: Mapping[str, Any]) -> SolverConfig:
    """A candidate as a recipe names it; candidates have their usual options."""
    return SolverConfig(name=found["name"], num_steps=found["num_steps"])


# --------------------------------------------------------------------------------------------------------- foreseeing


@dataclass(frozen=True)
class PlannedSolver:
    """A solver to plan with, and what choosing it takes at most.

    Attributes:
        solver: the recipe's; of `auto` the one that is known, or the dearest that it may choose.
        seeds: of the probe; 0 where nothing is to be chosen.
        evaluations: of the denoiser, for each of these seeds.
    """

    solver: SolverConfig
    seeds: int = 0
    evaluations: int = 0


def foresee(recipe: DistillRecipe, pairs: PairsConfig, teacher: Teacher, file: Path) -> PlannedSolver:
    """What a plan can know of the pairs' solver without solving anything."""
    config = pairs.solver
    if isinstance(config, SolverConfig):
        return PlannedSolver(config)
    if file.is_file() and (kept := read_choice(file)).asked == question(config, recipe, teacher):
        return PlannedSolver(kept.solver)
    tried = trials(candidates(config, teacher), config.evaluations, teacher.process)
    if not tried:
        raise UserError(unreached([], config.tolerance))
    dearest = solver_config(tried[-1].config())
    return PlannedSolver(dearest, config.probe, most_spent(tried, teacher.process))
