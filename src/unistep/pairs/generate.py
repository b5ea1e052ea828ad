"""Making pairs: shard by shard, each a pure function of the facts and its seeds, so any run can stop and go on.

Seeds are cut into shards at multiples of `rows_per_shard`, and shards into tiles, whoever asks for how much. A request
is rounded up to whole shards: a store then holds the same bytes whether its rows came in one go, in several, from
several ranks or after a kill. Only the rows asked for are seen through the `PairStore`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from unistep.diffusion.samplers import Sampler
from unistep.errors import UserError
from unistep.io.atomic import sweep
from unistep.pairs.facts import Facts, kernel_facts, row_facts
from unistep.pairs.manifest import MANIFEST, begin_manifest, read_manifest, shards_on_disk, update_table
from unistep.pairs.progress import pair_progress
from unistep.pairs.shard import cat, check_shard, shard_name, write_shard
from unistep.pairs.solve import TileSolver, fixed_kernels
from unistep.pairs.store import PairStore, covering_shards
from unistep.teachers.teacher import Teacher


def generate_pairs(
    teacher: Teacher,
    sampler: Sampler,
    out: Path | str,
    *,
    count: int,
    first_seed: int = 0,
    guidance: float = 1.0,
    tile: int = 64,
    rows_per_shard: int | None = None,
    dtype: str = "float32",
    rank: int = 0,
    world: int = 1,
    device: torch.device | str = "cpu",
    threads: int | None = None,
    progress: bool = True,
) -> PairStore:
    """Solves the teacher's ODE for seeds first_seed..first_seed + count - 1; what the folder holds already is kept.

    Args:
        teacher: the teacher; its denoiser is moved to `device`.
        sampler: the solver, usually deterministic.
        out: folder of the pairs; made if it does not exist.
        count: pairs wanted; rounded up to whole shards on the disk.
        first_seed: seed of the first pair, 0 or more.
        guidance: guidance scale of the teacher, 1 = off.
        tile: rows solved at a time; a kill costs at most the shard in work.
        rows_per_shard: rows per file, a multiple of `tile`; None = `tile`.
        dtype: storage type of x, "float32" or "float16".
        rank, world: this process makes every world-th shard. Once all ranks are done the store is complete.
        device: where to solve.
        threads: CPU threads to solve with; None = those the store was begun with, for a new one torch's.
        progress: show a progress bar (rank 0).

    Returns:
        The requested rows; with world > 1 other ranks may still be at work on theirs.

    Raises:
        UserError: for a bad argument, pairs made another way, a damaged shard, an unwritable folder or a full disk.
        KeyboardInterrupt: on Ctrl-C, saying what is stored; the same call goes on from there.
    """
    folder, device = Path(out), torch.device(device)
    rows_per_shard = tile if rows_per_shard is None else rows_per_shard
    _check_request(count, first_seed, tile, rows_per_shard, rank, world)
    solver = TileSolver(teacher, sampler, guidance, dtype, device)
    facts = row_facts(teacher, sampler, guidance=guidance, dtype=dtype)
    with _disk_errors(folder):
        threads = threads or _threads_of(folder) or torch.get_num_threads()
        facts |= kernel_facts(tile=tile, rows_per_shard=rows_per_shard, device=device, threads=threads)
        begin_manifest(folder, facts)
        mine = covering_shards(first_seed, count, rows_per_shard)[rank::world]
        missing = _missing_shards(folder, facts, mine)
        sweep(folder, {shard_name(shard) for shard in missing} | ({MANIFEST} if world == 1 else set()))
        with fixed_kernels(threads):
            _make(folder, facts, solver, mine, missing, progress and rank == 0)
        update_table(folder)
    return PairStore(folder, first_seed=first_seed, count=count)


def _make(
    folder: Path, facts: Facts, solver: TileSolver, mine: Sequence[int], missing: Sequence[int], show: bool
) -> None:
    """Solves and writes the missing shards."""
    rows, tile = facts["rows_per_shard"], facts["tile"]
    total, made = len(mine) * rows, len(mine) - len(missing)
    try:
        with pair_progress(total, made * rows, show) as advance:
            for shard in missing:
                tiles = []
                for first in range(shard, shard + rows, tile):
                    tiles.append(solver(first, tile))
                    advance(tile)
                write_shard(folder, cat(tiles), facts, shard)
                made += 1
    except KeyboardInterrupt:
        update_table(folder)
        raise KeyboardInterrupt(
            f"{folder}: {made * rows} of {total} pairs are stored; run the same command again to go on"
        ) from None


def _missing_shards(folder: Path, facts: Facts, wanted: Sequence[int]) -> list[int]:
    """Which of the wanted shards are not there yet; those that are must fit and be whole."""
    present = set(shards_on_disk(folder))
    for shard in wanted:
        if shard in present:
            check_shard(folder / shard_name(shard), facts, shard, None, full=False)
    return [shard for shard in wanted if shard not in present]


def _threads_of(folder: Path) -> int | None:
    """The thread count of a store begun earlier."""
    return read_manifest(folder)["facts"]["threads"] if (folder / MANIFEST).exists() else None


def _check_request(count: int, first_seed: int, tile: int, rows_per_shard: int, rank: int, world: int) -> None:
    """Arguments that make no sense are refused by name."""
    for name, value, least in (("count", count, 1), ("first_seed", first_seed, 0), ("tile", tile, 1)):
        if value < least:
            raise UserError(f"pairs.{name}: found {value}, expected {least} or more")
    if rows_per_shard < tile or rows_per_shard % tile:
        raise UserError(f"pairs.rows_per_shard: found {rows_per_shard}, expected a multiple of tile = {tile}")
    if not 0 <= rank < world:
        raise UserError(f"pairs.rank: found {rank} of world {world}, expected 0..world - 1")


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """What the system says about folder or disk, in one line; shards written before are whole and stay."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder}: {error.strerror or error}; expected a folder with room that can be written; the pairs stored "
            "so far are whole: free some space or choose another folder, then run the same command again"
        ) from error
