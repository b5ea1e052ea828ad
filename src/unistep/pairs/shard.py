"""One shard: a safetensors file of consecutive seeds that carries its own facts and checksum, written once."""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from unistep.errors import UserError
from unistep.io.atomic import atomic_write
from unistep.io.text_files import parse_json
from unistep.pairs.facts import Facts, require_facts

FORMAT = "unistep-pairs/1"
KEY = "unistep"  # one metadata entry, because the library writes several in no fixed order
CHUNK = 1 << 20
REMEDY = "delete this one file and run `unistep pairs` again, which makes it anew"


@dataclass(frozen=True)
class Header:
    """What a shard says about itself.

    Attributes:
        record: format, facts, first_seed and the sha256 over everything else in the header and all tensors.
        layout: safetensors' own description of each tensor.
        start: byte at which the tensors begin.
        size: bytes the whole file must have.
    """

    record: dict[str, Any]
    layout: dict[str, Any]
    start: int
    size: int

    def digest(self, payload: Iterator[bytes]) -> str:
        """The checksum: sha256 over the header, without the checksum itself, and the tensors' bytes."""
        record = {k: v for k, v in self.record.items() if k != "sha256"}
        sha = hashlib.sha256(json.dumps([record, self.layout], sort_keys=True).encode())
        for chunk in payload:
            sha.update(chunk)
        return sha.hexdigest()


def shard_name(first_seed: int) -> str:
    """File name of the shard that begins at a seed."""
    return f"seeds-{first_seed:012d}.safetensors"


def first_seed_of(name: str) -> int | None:
    """The way back from `shard_name`; None for any other file."""
    match = re.fullmatch(r"seeds-(\d{12,})\.safetensors", name)
    return int(match[1]) if match else None


def write_shard(folder: Path, tensors: Mapping[str, Tensor], facts: Facts, first_seed: int) -> None:
    """Writes one shard, whole or not at all: its bytes are a function of the arguments.

    Raises:
        OSError: for an unwritable folder or a full disk.
    """
    stored = {name: value.contiguous() for name, value in tensors.items()}
    record: dict[str, Any] = {"format": FORMAT, "facts": facts, "first_seed": first_seed}
    draft = save(stored, {KEY: json.dumps(record)})
    header = _parse(draft, len(draft))
    record["sha256"] = header.digest(iter([draft[header.start :]]))
    atomic_write(folder / shard_name(first_seed), save(stored, {KEY: json.dumps(record)}))


def read_header(file: Path) -> Header:
    """A shard's header.

    Raises:
        UserError: for a file that is missing, damaged, truncated or no shard of pairs.
    """
    try:
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            length = int.from_bytes(stream.read(8), "little")
            stream.seek(0)
            header = _parse(stream.read(min(8 + length, size)), size)
    except FileNotFoundError as error:
        raise UserError(f"{file}: not found; run `unistep pairs` again, which makes it anew") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: no readable header of a shard of pairs; {REMEDY}") from error
    if size != header.size:
        raise UserError(f"{file}: found {size} bytes, expected {header.size}: it is truncated or overgrown; {REMEDY}")
    if header.record.get("format") != FORMAT:
        raise UserError(
            f"{file}: found format {header.record.get('format')!r}, expected {FORMAT!r}; use another folder"
        )
    return header


def check_shard(file: Path, facts: Facts, first_seed: int, listed: Mapping[str, Any] | None, *, full: bool) -> None:
    """Refuses a shard that is damaged or belongs elsewhere.

    Args:
        file: the shard.
        facts: what the store's rows obey.
        first_seed: the seed it must begin at.
        listed: its entry in the manifest's table, if it stands there.
        full: whether to read the whole file and compare checksums, too.

    Raises:
        UserError: naming the file, what was found and what was expected.
    """
    header = read_header(file)
    require_facts(header.record.get("facts") or {}, facts, file)
    if header.record.get("first_seed") != first_seed:
        raise UserError(f"{file}: first_seed: found {header.record.get('first_seed')}, expected {first_seed}; {REMEDY}")
    if not full:
        return
    found, own = header.digest(_payload(file, header.start)), header.record.get("sha256")
    for expected in (own, listed["sha256"] if listed else own):
        if found != expected:
            raise UserError(f"{file}: checksum: found sha256 {found}, expected {expected}: it is corrupted; {REMEDY}")


def map_shard(file: Path) -> dict[str, Tensor]:
    """The tensors of a shard, memory-mapped: a row is read from the disk when it is touched.

    Raises:
        UserError: for a damaged file.
    """
    try:
        with safe_open(file, framework="pt") as shard:
            return {name: shard.get_tensor(name) for name in shard.keys()}
    except SafetensorError as error:
        raise UserError(f"{file}: no readable safetensors file ({error}); {REMEDY}") from error


def table_entry(file: Path, rows: int) -> dict[str, Any]:
    """A shard's line in the manifest's table, from its header."""
    header = read_header(file)
    record = header.record
    return {"first_seed": record["first_seed"], "rows": rows, "bytes": header.size, "sha256": record["sha256"]}


def _parse(data: bytes, size: int) -> Header:
    """The header at the beginning of a safetensors file; or the error that parsing it gave."""
    start = 8 + int.from_bytes(data[:8], "little")
    if not 8 < start <= min(size, len(data)):
        raise ValueError("the header is longer than the file")
    layout = parse_json(data[8:start], "header", REMEDY)
    text = layout.pop("__metadata__")[KEY]
    record = parse_json(text, "record", REMEDY)
    if json.dumps(record) != text:  # a digit too many to matter, say: the checksum is over values and would not see it
        raise ValueError("the record is not as it was written")
    end = max(tensor["data_offsets"][1] for tensor in layout.values())
    return Header(dict(record), layout, start, start + end)


def _payload(file: Path, start: int) -> Iterator[bytes]:
    with file.open("rb") as stream:
        stream.seek(start)
        while chunk := stream.read(CHUNK):
            yield chunk


def cat(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Rows one after the other, tensor by tensor."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
