"""manifest.json of a pair store: the facts every row obeys, and the table of shards with their checksums.

The facts are written once, when the store begins. The table is an index: a shard counts from the moment its file has
its name, since it carries its own facts and checksum, and whoever finishes brings the table up to date from what is
there. So ranks need no lock between them, and a kill between two writes loses nothing.
"""

import json
import os
from pathlib import Path
from typing import Any

from unistep.errors import UserError
from unistep.io.atomic import atomic_create, atomic_write
from unistep.io.text_files import read_json
from unistep.pairs.facts import Facts, require_facts
from unistep.pairs.shard import FORMAT, first_seed_of, shard_name, table_entry

MANIFEST = "manifest.json"
NEEDED = {"shape", "noise", "dtype", "rows_per_shard", "threads"}  # facts that reading relies on


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest: `format`, `facts` and `shards` (file name -> first_seed, rows, bytes, sha256).

    Raises:
        UserError: for a missing, damaged or foreign manifest.
    """
    file = folder / MANIFEST
    if not file.is_file():
        raise UserError(f"{file}: not found; expected a folder of pairs, as `unistep pairs` makes it")
    manifest = read_json(file, "delete this one file and run `unistep pairs` again, which rewrites it")
    found, facts = manifest.get("format"), manifest.get("facts")
    whole = isinstance(facts, dict) and facts.keys() >= NEEDED and isinstance(manifest.get("shards"), dict)
    if found != FORMAT or not whole:
        raise UserError(f"{file}: found format {found!r}, expected a whole {FORMAT!r}; use another folder")
    return manifest


def begin_manifest(folder: Path, facts: Facts) -> None:
    """Makes folder and manifest if there are none; of two ranks that begin at once one wins.

    Raises:
        UserError: if the folder's facts differ, naming the first that does.
        OSError: if the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / MANIFEST
    if not file.exists():
        atomic_create(file, _encode({"format": FORMAT, "facts": facts, "shards": {}}))
    require_facts(read_manifest(folder)["facts"], facts, file)


def shards_on_disk(folder: Path) -> list[int]:
    """First seeds of the shards that lie in the folder, ascending."""
    seeds = (first_seed_of(entry.name) for entry in os.scandir(folder))
    return sorted(seed for seed in seeds if seed is not None)


def update_table(folder: Path) -> None:
    """Enters shards that the table lacks. What is listed stays, so a lost file is missed and not forgotten."""
    manifest = read_manifest(folder)
    table, rows = manifest["shards"], manifest["facts"]["rows_per_shard"]
    new = [name for name in map(shard_name, shards_on_disk(folder)) if name not in table]
    if new:
        table |= {name: table_entry(folder / name, rows) for name in new}
        manifest["shards"] = {name: table[name] for name in sorted(table)}
        atomic_write(folder / MANIFEST, _encode(manifest))


def _encode(manifest: dict[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=1) + "\n").encode()
