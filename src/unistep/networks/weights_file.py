"""Weights from a file of the user's: safetensors, or what torch.save wrote, read as tensors and nothing else."""

import hashlib
import json
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unistep.errors import UserError
from unistep.io.text_files import parse_json


def read_weights(path: Path, key: str, expected: str) -> tuple[dict[str, Tensor], str]:
    """Tensors by name, on the CPU, and the file's sha256.

    Args:
        path: a .safetensors file, or one of torch's own format (`weights_only`: nothing in it is called).
        key: of the recipe that names the file, for messages.
        expected: which file it should be, in words.

    Raises:
        UserError: for a missing or unreadable file, or one that holds more than tensors by name.
    """
    digest = file_sha256(path, key, expected)
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, ValueError, EOFError, LookupError) as error:
        reason = str(error).split("\n")[0][:120]
        raise UserError(f"{key}: {path} holds no readable weights ({reason}); expected {expected}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{key}: {path} holds more than tensors by name, expected {expected}")
    return dict(state), digest


def file_sha256(path: Path, key: str, expected: str) -> str:
    """sha256 of a file that a recipe names.

    Raises:
        UserError: if it is not there, with which file to get and which key to set.
    """
    if not path.is_file():
        raise UserError(f"{key}: found no file {path}, expected {expected}; get it and name its place in {key}")
    return files_sha256(path)


def files_sha256(*paths: Path) -> str:
    """Returns the sha256 over the bytes of one file, or of several one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def sort_metadata(file: Path) -> None:
    """Puts the entries of a safetensors header's metadata in order, in place: the library writes them in a random one.

    Without it the same weights would not make the same bytes, and no sha256 of an export could be compared.
    """
    with file.open("r+b") as stream:
        size = int.from_bytes(stream.read(8), "little")
        layout = parse_json(stream.read(size), file, "write the file again")
        metadata = dict(sorted(layout.pop("__metadata__", {}).items()))
        whole = ({"__metadata__": metadata} if metadata else {}) | layout
        text = json.dumps(whole, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > size:
            raise ValueError(f"{file}: its header grew from {size} to {len(text)} bytes when it was put in order")
        stream.seek(8)
        stream.write(text.ljust(size))
