"""Reading pairs: lazy, memory-mapped, larger than memory, every shard checked before its first row is used."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from unistep.data.order import rows_for_step
from unistep.errors import UserError
from unistep.pairs.facts import require_facts
from unistep.pairs.manifest import MANIFEST, read_manifest, shards_on_disk
from unistep.pairs.noise import Noise
from unistep.pairs.shard import cat, check_shard, map_shard, shard_name
from unistep.types import Cond

MAPPED_SHARDS = 4096  # shards mapped at a time; the system allows some 65,000 mappings per process

Verify = Literal["size", "full"]


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Rows of a store.

    Attributes:
        z: unit noise float32 [b, *dims], a pure function of the seeds.
        x: the teacher's answer float32 [b, *dims], in model space.
        cond: labels int64 [b] of what the teacher was conditioned on, classes or prompts; None without.
        seeds: int64 [b].
    """

    z: Tensor
    x: Tensor
    cond: Cond
    seeds: Tensor

    def __len__(self) -> int:
        return len(self.seeds)


class PairStore:
    """The pairs of seeds first_seed..first_seed + count - 1; `open_pairs` and `generate_pairs` make one.

    Args:
        folder: where the shards are.
        first_seed: seed of row 0.
        count: number of rows.
        verify: what is checked when a shard is first used: "full" reads it whole and compares checksums, "size" checks
            header and size.
    """

    def __init__(self, folder: Path, *, first_seed: int, count: int, verify: Verify = "full"):
        self.folder, self.first_seed, self.verify = folder, first_seed, verify
        self.manifest: dict[str, Any] = read_manifest(folder)
        self._count = count
        self._noise = Noise(first_seed, count, tuple(self.manifest["facts"]["shape"]))
        self._mapped: OrderedDict[int, dict[str, Tensor]] = OrderedDict()
        self._checked: set[int] = set()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Tensor) -> Pairs:
        """Rows by index, int64 [b], each 0..len - 1, in the order asked for.

        Raises:
            IndexError: for a row outside the store.
            UserError: for a shard that is missing, damaged or foreign.
        """
        rows = torch.as_tensor(index, dtype=torch.int64).reshape(-1)
        if len(rows) == 0 or int(rows.min()) < 0 or int(rows.max()) >= len(self):
            raise IndexError(f"pairs: found rows {rows.tolist()[:8]}, expected at least one, each 0..{len(self) - 1}")
        seeds = rows + self.first_seed
        stored = self._gather(seeds)
        return Pairs(z=self._noise.rows(rows), x=stored["x"].float(), cond=stored.get("label"), seeds=seeds)

    def by_shard(self) -> Iterator[Pairs]:
        """All rows in order, a shard at a time."""
        for first in self.shards():
            low = max(first, self.first_seed)
            high = min(first + self._rows_per_shard, self.first_seed + len(self))
            yield self[torch.arange(low, high) - self.first_seed]

    def shards(self) -> range:
        """First seeds of the shards that hold these rows."""
        return covering_shards(self.first_seed, len(self), self._rows_per_shard)

    @property
    def seeds_on_disk(self) -> range:
        """The seeds that the shards of these rows hold: the rows, rounded out to whole shards."""
        shards = self.shards()
        return range(shards[0], shards[-1] + self._rows_per_shard)

    @property
    def _rows_per_shard(self) -> int:
        return self.manifest["facts"]["rows_per_shard"]

    def _gather(self, seeds: Tensor) -> dict[str, Tensor]:
        """Stored tensors of these seeds; each shard is visited once."""
        order = seeds.argsort()
        firsts, sizes = (seeds[order] - seeds[order] % self._rows_per_shard).unique_consecutive(return_counts=True)
        parts = zip(firsts.tolist(), seeds[order].split(sizes.tolist()), strict=True)
        rows = cat([{k: v[part - first] for k, v in self._shard(first).items()} for first, part in parts])
        back = order.argsort()
        return {k: v[back] for k, v in rows.items()}

    def _shard(self, first: int) -> dict[str, Tensor]:
        """A mapped shard; the least recently used ones are let go."""
        if first in self._mapped:
            self._mapped.move_to_end(first)
            return self._mapped[first]
        file = self.folder / shard_name(first)
        if first not in self._checked:
            listed = self.manifest["shards"].get(file.name)
            check_shard(file, self.manifest["facts"], first, listed, full=self.verify == "full")
            self._checked.add(first)
        self._mapped[first] = map_shard(file)
        if len(self._mapped) > MAPPED_SHARDS:
            self._mapped.popitem(last=False)
        return self._mapped[first]


def open_pairs(
    folder: Path | str,
    expect: Mapping[str, Any] | None = None,
    *,
    first_seed: int | None = None,
    count: int | None = None,
    verify: Verify = "full",
) -> PairStore:
    """Opens pairs for reading.

    Args:
        folder: where `generate_pairs` put them.
        expect: facts they must have, usually `row_facts(teacher, sampler, guidance=..., dtype=...)`.
        first_seed: seed of row 0; None = the lowest there is.
        count: rows wanted; None = all from there on.
        verify: "full" compares a shard's checksum before its first row is used, "size" its header and size only.

    Raises:
        UserError: if there are no pairs, some of the wanted ones are missing, a fact differs, or this numpy draws
            another z from a seed than the one that the pairs were made from.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    require_facts(manifest["facts"], expect or {}, folder / MANIFEST)
    Noise.require_unchanged(manifest["facts"], folder / MANIFEST)
    rows, present = manifest["facts"]["rows_per_shard"], shards_on_disk(folder)
    if not present:
        raise UserError(f"{folder}: found no pairs, expected at least one shard; run `unistep pairs` first")
    first = present[0] if first_seed is None else first_seed
    wanted = present[-1] + rows - first if count is None else count
    if wanted < 1 or first < 0:
        raise UserError(
            f"{folder}: found a request for {wanted} pairs from seed {first} on, expected 1 or more from 0 on"
        )
    store = PairStore(folder, first_seed=first, count=wanted, verify=verify)
    missing = sorted(set(store.shards()) - set(present))
    if missing:
        raise UserError(
            f"{folder}: found {len(store.shards()) - len(missing)} of the {len(store.shards())} shards that hold "
            f"{wanted} pairs from seed {first} on; {shard_name(missing[0])} is missing; run `unistep pairs` again"
        )
    return store


def pair_batch(store: PairStore, batch: int, seed: int, step: int) -> Pairs:
    """The pairs of one training step, a pure function of its arguments: each pair comes once per epoch."""
    return store[rows_for_step(len(store), batch, seed, step)]


def covering_shards(first_seed: int, count: int, rows_per_shard: int) -> range:
    """First seeds of the shards that hold `count` seeds: shards begin at multiples of their size, whoever asks."""
    return range(first_seed - first_seed % rows_per_shard, first_seed + count, rows_per_shard)
