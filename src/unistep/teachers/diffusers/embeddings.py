"""Text embeddings, computed once: shards of rows beside a manifest, named by the hash of encoders and prompts."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn.functional import pad

from unistep.assets import user_cache
from unistep.errors import UserError
from unistep.io.atomic import atomic_write
from unistep.io.text_files import read_json
from unistep.teachers.diffusers.text import Rows

FORMAT = "unistep-text/2"
MANIFEST, NULL = "manifest.json", "null.safetensors"
ROWS_PER_SHARD, TILE = 256, 8
REMEDY = "delete the folder, its embeddings are computed anew from the prompts"

Encode = Callable[[Sequence[str]], Rows]


class Embeddings:
    """Rows of embeddings by index; rows of different length are padded with zeros, as their mask says.

    Args:
        shards: equal numbers of rows each, but for the last one.
        null: one row, "no condition".
        check: called with a shard's number before each of its rows is read.
    """

    def __init__(
        self,
        shards: Sequence[Mapping[str, Tensor]],
        null: Mapping[str, Tensor],
        check: Callable[[int], None] = lambda shard: None,
    ):
        self.shards, self.null, self.check = shards, null, check
        self.rows_per_shard = len(shards[0]["text"])
        self.length = max(part["text"].shape[1] for part in (*shards, null))

    def __len__(self) -> int:
        return sum(len(shard["text"]) for shard in self.shards)

    def rows(self, index: Tensor) -> Rows:
        """Rows by index int64 [b]; -1 is "no condition"."""
        gathered = [self.row(i) for i in index.tolist()]
        with torch.autocast("cpu", enabled=False):  # which cannot stack what is kept in float16
            return {name: torch.stack([row[name] for row in gathered]) for name in self.null}

    def row(self, i: int) -> Rows:
        """One row, padded."""
        if i >= 0:
            self.check(i // self.rows_per_shard)
        shard, place = (self.null, 0) if i < 0 else (self.shards[i // self.rows_per_shard], i % self.rows_per_shard)
        return {name: self.padded(name, shard[name][place]) for name in self.null}

    def padded(self, name: str, value: Tensor) -> Tensor:
        """Text [length, width] and mask [length] at the common length."""
        missing = self.length - len(value) if name in ("text", "mask") else 0
        return pad(value, (0, 0, 0, missing) if value.ndim == 2 else (0, missing)) if missing else value


def encode_all(prompts: Sequence[str], encode: Encode) -> Rows:
    """Embeddings of prompts, in tiles of one size: a row does not depend on how many others are asked for."""
    tiles = []
    for first in range(0, len(prompts), TILE):
        tile = list(prompts[first : first + TILE])
        rows = encode(tile + [tile[-1]] * (TILE - len(tile)))
        tiles.append({name: value[: len(tile)] for name, value in rows.items()})
    table = Embeddings(tiles, tiles[0])
    return table.rows(torch.arange(len(prompts)))


def in_memory(prompts: Sequence[str], encode: Encode, null: Callable[[], Rows]) -> Embeddings:
    """Embeddings that are kept nowhere."""
    return Embeddings([encode_all(prompts, encode)], null())


def default_cache() -> Path:
    """Where embeddings are kept, see `assets.user_cache`."""
    return user_cache("text")


def key_of(facts: Mapping[str, Any], prompts: Sequence[str]) -> str:
    """sha256 over what the embeddings are a function of."""
    return hashlib.sha256(json.dumps([facts, list(prompts)], sort_keys=True).encode()).hexdigest()


def compute(folder: Path, key: str, prompts: Sequence[str], encode: Encode, null: Callable[[], Rows]) -> None:
    """Fills a folder shard by shard; what an earlier call finished is kept.

    Raises:
        UserError: if the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for first in range(0, len(prompts), ROWS_PER_SHARD):
            file = folder / shard_name(first)
            if not file.is_file():
                atomic_write(file, save(encode_all(prompts[first : first + ROWS_PER_SHARD], encode), {"key": key}))
        atomic_write(folder / NULL, save(null(), {"key": key}))
        names = [*map(shard_name, range(0, len(prompts), ROWS_PER_SHARD)), NULL]
        files = {name: {"bytes": (folder / name).stat().st_size, "sha256": digest(folder / name)} for name in names}
        manifest = {"format": FORMAT, "key": key, "prompts": list(prompts), "files": files}
        atomic_write(folder / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    except OSError as error:
        raise UserError(
            f"{folder}: {error.strerror or error}; expected a folder with room that can be written"
        ) from error


def shard_name(first: int) -> str:
    """File name of the shard that begins at a prompt."""
    return f"rows-{first:012d}.safetensors"


def digest(file: Path) -> str:
    """sha256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_complete(folder: Path) -> bool:
    """Whether a folder of embeddings is finished, in the present format."""
    try:
        with (folder / MANIFEST).open("rb") as manifest:
            return f'"{FORMAT}"'.encode() in manifest.read(64)  # prompts may be millions
    except OSError:
        return False


def open_embeddings(folder: Path, key: str | None = None) -> tuple[Embeddings, tuple[str, ...], str]:
    """Embeddings of a folder, memory-mapped, their prompts and their key.

    Sizes are compared here, and the content of each shard when its first row is read, once in a process.

    Raises:
        UserError: for a folder that is missing, damaged or another one than `key` names.
    """
    manifest = read_manifest(folder)
    if key is not None and manifest["key"] != key:
        raise UserError(f"{folder}: found embeddings of key {manifest['key']}, expected {key}; {REMEDY}")
    listed = manifest["files"]
    for name, expected in listed.items():
        if not (folder / name).is_file() or (folder / name).stat().st_size != expected["bytes"]:
            raise other_content(folder / name)
    require_content(folder / NULL, listed[NULL]["sha256"])
    tables = {name: mapped(folder / name, manifest["key"]) for name in listed}
    null, names = tables.pop(NULL), sorted(name for name in listed if name != NULL)

    def check(shard: int) -> None:
        require_content(folder / names[shard], listed[names[shard]]["sha256"])

    return Embeddings([tables[name] for name in names], null, check), tuple(manifest["prompts"]), manifest["key"]


@cache
def require_content(file: Path, sha256: str) -> None:
    """A file must have a sha256; asked again in the same process it is not read again.

    Raises:
        UserError: if it has another one.
    """
    if digest(file) != sha256:
        raise other_content(file)


def other_content(file: Path) -> UserError:
    """For a file that is missing or another one."""
    return UserError(f"{file}: found another content than the manifest lists, expected it; {REMEDY}")


def read_manifest(folder: Path) -> dict[str, Any]:
    """manifest.json of a folder of embeddings."""
    file = folder / MANIFEST
    if not file.is_file():
        raise UserError(f"{file}: not found; load the teacher again, which computes the embeddings of its prompts")
    manifest = read_json(file, REMEDY)
    found = manifest.get("format")
    if found != FORMAT or not {"key", "prompts", "files"} <= set(manifest) or NULL not in manifest["files"]:
        raise UserError(f"{file}: found format {found!r}, expected a whole {FORMAT!r}; {REMEDY}")
    return manifest


def mapped(file: Path, key: str) -> Rows:
    """The tensors of a shard, read from the disk when they are touched."""
    try:
        with safe_open(file, framework="pt") as shard:
            if (shard.metadata() or {}).get("key") != key:
                raise UserError(f"{file}: found another key than the manifest's, expected {key}; {REMEDY}")
            return {name: shard.get_tensor(name) for name in shard.keys()}
    except SafetensorError as error:
        raise UserError(f"{file}: no readable safetensors file ({error}); {REMEDY}") from error
