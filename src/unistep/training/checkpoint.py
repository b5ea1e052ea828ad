"""Checkpoint folders that are whole or absent: written under a temporary name, hashed, renamed."""

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from unistep.errors import UserError
from unistep.io.text_files import read_json
from unistep.networks.weights_file import sort_metadata
from unistep.training.distributed import on_rank_zero

MANIFEST = "manifest.json"
FORMAT = 1
STEP = re.compile(r"step-(\d{7}|[1-9]\d{7,})")
ADVICE = "delete the folder to go on from the checkpoint before it"


class Checkpoints:
    """The checkpoints of one run, `step-XXXXXXX` folders of safetensors shards with a manifest.

    The tensors go through torch.distributed.checkpoint, so what was saved on W ranks loads on any other number. Its
    safetensors storage is used, because the default one keeps its index as a pickle. The manifest holds size and
    SHA-256 of every file and is written last, before the rename: a folder under its final name is complete.

    Args:
        folder: where the folders stand, `RUN/checkpoints`.
        keep: how many of the last ones stay; the best one stays besides.
    """

    def __init__(self, folder: Path, keep: int = 2):
        self.folder, self.keep = folder, keep

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending; a folder without a manifest or of another name is not one."""
        named = (STEP.fullmatch(path.parent.name) for path in self.folder.glob(f"step-*/{MANIFEST}"))
        return sorted(int(found[1]) for found in named if found)

    def path(self, step: int) -> Path:
        """Folder of one step."""
        return self.folder / f"step-{step:07d}"

    def latest(self) -> Path | None:
        """The newest complete checkpoint; all ranks get the same answer."""
        return on_rank_zero(lambda: self.path(self.steps()[-1]) if self.steps() else None)

    def save(
        self, step: int, tensors: Mapping[str, Tensor], record: Mapping[str, Any], best: int | None = None
    ) -> Path:
        """Writes one checkpoint and drops old ones; every rank must call it. A step saved before is left as it is.

        Args:
            step: completed steps.
            tensors: flat name -> tensor, sharded or not.
            record: plain values to stand in the manifest.
            best: step of the best checkpoint so far, which is not dropped.

        Raises:
            UserError: if the folder cannot be written or the disk is full; older checkpoints are untouched.
        """
        final, draft = self.path(step), self.folder / f".draft-step-{step:07d}"
        if on_rank_zero(lambda: (final / MANIFEST).exists()):
            return final
        on_rank_zero(lambda: guarded(self.folder, lambda: start_draft(draft)))
        guarded(self.folder, lambda: write_tensors(draft, tensors))
        shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
        on_rank_zero(lambda: guarded(self.folder, lambda: seal(draft, final, step, shapes, record)))
        on_rank_zero(lambda: guarded(self.folder, lambda: self.prune(best)))
        return final

    def load(self, path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Checks a checkpoint, fills the tensors in place and returns its record; every rank must call it.

        Raises:
            UserError: if a file is missing, shortened or changed, or the tensors are other ones.
        """
        manifest = on_rank_zero(lambda: verify(path))
        same_tensors(path, manifest["tensors"], {name: list(t.shape) for name, t in tensors.items()})
        with quiet():
            reader = HuggingFaceStorageReader(str(path))
            load(dict(tensors), storage_reader=reader, no_dist=not dist.is_initialized())
        return manifest["record"]

    def averaged(self, step: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The averaged network of one step (its last weights where no average is kept) and its description.

        For one process. See `train` for the description.

        Returns:
            Name -> float32 tensor in full; plain values.

        Raises:
            UserError: if a file is missing, shortened or changed, or the checkpoint has no description.
        """
        manifest = verify(self.path(step))
        about = manifest["record"].get("averaged") or {}
        if about.get("description") is None:
            raise UserError(f"{self.path(step)}: found no description of its network; it cannot be opened by itself")
        prefixes = (f"networks.{about['name']}.", "ema.")  # the average has no buffers of its own
        shapes = manifest["tensors"].items()
        tensors = {name: torch.empty(shape) for name, shape in shapes if name.startswith(prefixes)}
        with quiet():
            load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(self.path(step))), no_dist=True)
        state: dict[str, Tensor] = {}
        for prefix in prefixes:
            state |= {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        return state, about["description"]

    def prune(self, best: int | None) -> None:
        """Removes all but the last `keep` and the best, and what killed runs left; runs on one rank."""
        for step in self.steps()[: -self.keep]:
            if step != best:
                # Renamed first: a kill in the middle of the removal must not leave half a checkpoint under its name.
                os.replace(self.path(step), self.folder / f".draft-old-{step:07d}")
        for leftover in self.folder.glob(".draft-*"):
            shutil.rmtree(leftover)


def read_record(path: Path) -> dict[str, Any]:
    """Returns the record of a checkpoint folder, without reading its tensors.

    Raises:
        UserError: for a damaged manifest.
    """
    return read_manifest(path)["record"]


def read_manifest(path: Path) -> dict[str, Any]:
    """Returns the manifest of a checkpoint folder, its parts of the right types.

    Raises:
        UserError: naming what is damaged.
    """
    file = path / MANIFEST
    try:
        manifest = read_json(file, ADVICE)
    except OSError as error:
        raise UserError(f"{file}: unreadable ({error.strerror or error}); {ADVICE}") from error
    for part in ("files", "tensors", "record"):
        if not isinstance(manifest.get(part), dict):
            raise UserError(
                f"{file}: found {type(manifest.get(part)).__name__} under {part}, expected a mapping; {ADVICE}"
            )
    for name, entry in manifest["files"].items():
        if not isinstance(entry, dict) or not {"size", "sha256"} <= entry.keys():
            raise UserError(f"{file}: found no size and sha256 of {name}; {ADVICE}")
    return manifest


# -------------------------------------------------------------------------------------------------------- one folder


def start_draft(draft: Path) -> None:
    """An empty draft folder."""
    if draft.exists():
        shutil.rmtree(draft)
    draft.mkdir(parents=True)


def write_tensors(draft: Path, tensors: Mapping[str, Tensor]) -> None:
    """All ranks' shards into the draft; safetensors wants contiguous memory."""
    writer = HuggingFaceStorageWriter(str(draft), save_distributed=True)
    with quiet():
        save({n: t.detach().contiguous() for n, t in tensors.items()}, storage_writer=writer,
                 no_dist=not dist.is_initialized())  # fmt: skip


def seal(draft: Path, final: Path, step: int, shapes: dict[str, list[int]], record: Mapping[str, Any]) -> None:
    """Hashes and syncs the draft's files, writes the manifest and gives the folder its final name."""
    for shard in draft.glob("*.safetensors"):
        sort_metadata(shard)
    files = {file.name: describe(file) for file in sorted(draft.iterdir())}
    manifest = {"format": FORMAT, "step": step, "files": files, "tensors": shapes, "record": dict(record)}
    with open(draft / MANIFEST, "w") as file:
        json.dump(manifest, file, indent=1, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    sync(draft)
    if final.exists():  # no manifest inside, or `save` would have returned: not a checkpoint
        os.replace(final, draft.with_name(f".draft-old-{step:07d}"))
    os.replace(draft, final)
    sync(final.parent)


def describe(file: Path) -> dict[str, int | str]:
    """Size and SHA-256 of a file, after syncing it to the disk."""
    sync(file)
    with open(file, "rb") as stream:
        return {"size": file.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def sync(path: Path) -> None:
    """fsync of a file or folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def verify(path: Path) -> dict[str, Any]:
    """The manifest, after every file has been compared with it."""
    manifest = read_manifest(path)
    foreign = sorted(file.name for file in path.glob("*.safetensors") if file.name not in manifest["files"])
    if foreign:
        raise UserError(f"{path / foreign[0]}: found a file that the checkpoint does not list; move it elsewhere")
    for name, expected in manifest["files"].items():
        if not (path / name).is_file():
            raise UserError(f"{path / name}: missing, expected {expected['size']} bytes; {ADVICE}")
        found = describe(path / name)
        for key in ("size", "sha256"):
            if found[key] != expected[key]:
                raise UserError(f"{path / name}: found {key} {found[key]}, expected {expected[key]}; {ADVICE}")
    return manifest


def same_tensors(path: Path, saved: Mapping[str, list[int]], wanted: Mapping[str, list[int]]) -> None:
    """Refuses a checkpoint of other networks, naming the first tensor that differs."""
    for name in sorted(saved.keys() | wanted.keys()):
        if saved.get(name) != wanted.get(name):
            found, expected = saved.get(name, "nothing"), wanted.get(name, "nothing")
            raise UserError(
                f"{path}: tensor {name} has shape {found} in the checkpoint, the run expects {expected}; "
                "resume with the recipe that wrote it, or use another run folder"
            )


# ------------------------------------------------------------------------------------------------------------ errors


def guarded(folder: Path, action: Callable[[], Any]) -> Any:
    """Runs an action that writes; a failure of the file system becomes a UserError, a Ctrl-C stays one."""
    try:
        return action()
    except (Exception, CheckpointException) as error:  # the latter is no Exception
        if isinstance(error, CheckpointException) and any(
            isinstance(failure, KeyboardInterrupt) for failure, _ in error.failures.values()
        ):
            raise KeyboardInterrupt from error
        cause = storage_cause(error)
        if cause is None:
            raise
        raise UserError(
            f"{folder}: writing the checkpoint failed: {cause}; free space or allow writing there, then run the same "
            "command again (earlier checkpoints are untouched)"
        ) from error


def storage_cause(error: BaseException) -> str | None:
    """What the file system said, or None if the error is of another kind."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, CheckpointException):
        causes = [storage_cause(failure) for failure, _ in error.failures.values()]
        return next((cause for cause in causes if cause is not None), None)
    return None


@contextmanager
def quiet() -> Iterator[None]:
    """Without the checkpoint library's remark that a single process is a single process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield
