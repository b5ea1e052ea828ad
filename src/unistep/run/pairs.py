"""`make_pairs`: the noise-image pairs of a recipe, made if they are not there yet."""

from contextlib import ExitStack
from pathlib import Path

import torch

from unistep.diffusion.samplers import Sampler, build_sampler
from unistep.errors import UserError
from unistep.pairs import PairStore, generate_pairs
from unistep.pairs.manifest import shards_on_disk
from unistep.pairs.store import covering_shards
from unistep.recipes.load import RecipeLike, recipe_of
from unistep.recipes.merge import merge
from unistep.recipes.overrides import Overrides, read_overrides, with_flags
from unistep.recipes.schema import DistillRecipe
from unistep.recipes.sections import AutoSolverConfig, PairsConfig, SolverConfig
from unistep.run.certify import require_certificate
from unistep.run.console import Talk
from unistep.run.folder import folder_of, only_writer, open_run, record, record_start
from unistep.run.preflight import require_pairs
from unistep.run.solver_choice import FILE, find_choice
from unistep.run.teacher import find_teacher
from unistep.teachers.teacher import Teacher
from unistep.training.distributed import barrier, on_rank_zero, process_group, rank, resolve_device, world_size


def make_pairs(
    recipe: RecipeLike,
    *,
    out: str | Path | None = None,
    overrides: Overrides = (),
    teacher: Teacher | None = None,
    solver: str | None = None,
    device: str = "auto",
    quiet: bool = False,
) -> Path:
    """Makes a distill recipe's pairs, going on where an earlier call stopped, as `distill` does when it needs them.

    Args:
        recipe: a distill recipe: built-in name, path, mapping or loaded.
        out: the run's folder; None = runs/<recipe name>.
        overrides: `a.b=c` items or a mapping, see `load_recipe`.
        teacher: your own teacher, instead of the recipe's.
        solver: a solver's name, or `auto`, in the place of the recipe's; `overrides` may say more of it.
        device: auto, cpu or cuda.
        quiet: print nothing.

    Returns:
        The folder of the pairs; `unistep.pairs.open_pairs` opens it.

    Raises:
        UserError: for mistakes in recipe, teacher or folder.
        KeyboardInterrupt: on Ctrl-C; finished shards stay.
    """
    named = {} if solver is None else {"pairs": {"solver": solver}}
    resolved = recipe_of(DistillRecipe, recipe, with_flags(merge(named, read_overrides(overrides)), None, device))
    where, say = resolve_device(resolved.training.device), Talk(quiet)
    with process_group(where):
        ready = require_pairs(resolved, folder_of(resolved, out), where, teacher)
        with only_writer(folder_of(resolved, out), say):
            folder = on_rank_zero(lambda: open_run(resolved, Path(out) if out else None))
            on_rank_zero(lambda: record_start(folder, where))
            found = ready.loaded or find_teacher(resolved, folder, where, say, quiet)
            on_rank_zero(lambda: record(folder, teacher={"source": found.source, "sha256": found.sha256}))
            if resolved.teacher.certify:
                require_certificate(found, folder, where, say)
            return pairs_of_run(resolved, found, folder, where, say, quiet).folder


def pairs_of_run(
    recipe: DistillRecipe, teacher: Teacher, folder: Path, device: torch.device, say: Talk, quiet: bool = False
) -> PairStore:
    """The pairs in the run's folder (or where the recipe says); missing ones are made, each rank its share.

    Raises:
        UserError: if the recipe has no pairs section, or the folder holds other pairs.
    """
    config = recipe.pairs
    if config is None:
        raise UserError(f"pairs: found nothing in recipe {recipe.name}, expected a section with at least a count")
    place = place_of(config, folder)
    solver = known_solver(recipe, config, teacher, folder, device, say)
    say(f"pairs: {config.count:,} of {teacher.source} in {place}")
    with ExitStack() as stack:
        if on_rank_zero(lambda: is_incomplete(config, place)):
            stack.enter_context(only_writer(place, say))
        store = generate_pairs(
            teacher, sampler_of(solver), place, count=config.count, first_seed=config.first_seed,
            guidance=recipe.teacher.guidance, tile=config.tile, dtype=config.dtype, rank=rank(), world=world_size(),
            device=device, progress=not quiet,
        )  # fmt: skip
        barrier()  # the other ranks' shards are there from here on
    return store


def is_incomplete(config: PairsConfig, place: Path) -> bool:
    """Whether pairs have to be made: whole ones serve any number of runs at once."""
    wanted = covering_shards(config.first_seed, config.count, config.tile)
    if not place.is_dir():
        return not place.exists()  # a file there is refused by who makes the pairs
    return not {*wanted} <= {*shards_on_disk(place)}


def place_of(config: PairsConfig, folder: Path) -> Path:
    """Where the pairs of a run are."""
    return folder / "pairs" if config.path is None else Path(config.path)


def known_solver(
    recipe: DistillRecipe, config: PairsConfig, teacher: Teacher, folder: Path, device: torch.device, say: Talk
) -> SolverConfig:
    """The pairs' solver; `auto` is chosen, kept with the pairs, and said in run.json."""
    solver = config.solver
    if not isinstance(solver, AutoSolverConfig):
        return solver
    file = place_of(config, folder) / FILE
    kept = on_rank_zero(lambda: find_choice(solver, recipe, teacher, file, device, say))
    on_rank_zero(lambda: record(folder, pairs_solver=kept.json()))
    return kept.solver


def sampler_of(solver: SolverConfig) -> Sampler:
    """The sampler of a named solver."""
    return build_sampler(solver.name, solver.num_steps, **solver.options)
