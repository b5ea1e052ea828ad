"""Bytes of noise-image pairs, on the disk and in memory; one shard is written, to a temporary folder, and measured."""

import tempfile
from pathlib import Path

import torch

from unistep.diffusion.samplers import Sampler
from unistep.pairs.facts import DTYPES, kernel_facts, row_facts
from unistep.pairs.manifest import MANIFEST, begin_manifest, shards_on_disk, update_table
from unistep.pairs.noise import KEPT_BYTES
from unistep.pairs.shard import shard_name, write_shard
from unistep.pairs.solve import stored_labels
from unistep.pairs.store import covering_shards
from unistep.recipes.sections import PairsConfig
from unistep.teachers.teacher import Teacher


def missing_shards(config: PairsConfig, place: Path) -> int:
    """How many shards are still to be made, of those that hold the pairs."""
    wanted = covering_shards(config.first_seed, config.count, config.tile)
    present = set(shards_on_disk(place)) if place.is_dir() else set()
    return len(set(wanted) - present)


def pair_tensors(config: PairsConfig, teacher: Teacher) -> dict[str, torch.Tensor]:
    """What a shard stores, with zeros for the teacher's answers."""
    seeds = torch.arange(config.tile)
    x = torch.zeros(config.tile, *teacher.shape, dtype=DTYPES[config.dtype])
    return {"seeds": seeds, "x": x, **stored_labels(teacher.conditioner, seeds)}


def pairs_disk(config: PairsConfig, teacher: Teacher, sampler: Sampler, guidance: float, shards: int) -> int:
    """Bytes of so many shards and of their lines in the manifest."""
    facts = row_facts(teacher, sampler, guidance=guidance, dtype=config.dtype)
    facts |= kernel_facts(
        tile=config.tile, rows_per_shard=config.tile, device=torch.device("cpu"), threads=torch.get_num_threads()
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begin_manifest(folder, facts)
        empty = (folder / MANIFEST).stat().st_size
        write_shard(folder, pair_tensors(config, teacher), facts, config.first_seed)
        update_table(folder)
        line = (folder / MANIFEST).stat().st_size - empty
        shard = (folder / shard_name(config.first_seed)).stat().st_size
    return empty + shards * (shard + line)


def pairs_in_memory(config: PairsConfig, teacher: Teacher, touched: int) -> int:
    """Bytes in memory once so many rows have been used: mapped pages of x, and z where it is kept."""
    stored = sum(tensor.nbytes for tensor in pair_tensors(config, teacher).values()) // config.tile
    z = 4 * torch.Size(teacher.shape).numel()
    kept = z if config.count * z <= KEPT_BYTES else 0
    return min(touched, config.count) * (stored + kept)
