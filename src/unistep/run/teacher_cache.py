"""Features of a teacher's samples, kept for all runs, so that by the same protocol it is measured once."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from unistep.assets import user_cache
from unistep.errors import UserError
from unistep.evaluation.cache import Identity, holds, load_features
from unistep.evaluation.evaluate import Candidate, slug
from unistep.evaluation.extractors.resized import ResizedCodec
from unistep.evaluation.result import versions
from unistep.evaluation.throughput import device_name
from unistep.io.atomic import atomic_write
from unistep.run.folder import git_commit
from unistep.teachers.diffusers.codec import VAECodec
from unistep.teachers.teacher import Teacher

LIMIT = "UNISTEP_CACHE_GIB"  # environment variable: the most that all features together may take; 0 keeps none
USUAL_LIMIT = 2.0
LIBRARIES = ("diffusers", "transformers", "safetensors")


@dataclass(frozen=True)
class TeacherCache:
    """The features of one teacher's samples in the user's cache, `features` in `assets.user_cache`.

    A file's name is a hash of everything that the features depend on: weights as they are in memory, configuration,
    codec, conditions, solver, guidance, seeds, number of samples, judge, device, versions and commit. Files are
    written atomically and checked when they are read, so that any number of processes may share the folder.

    Attributes:
        teacher: as its evaluation sees it.
        device: where it is sampled.
        count: samples.
    """

    teacher: Teacher
    device: torch.device
    count: int

    def find(self, identity: Identity) -> Path | None:
        """Returns the file of features, None where there is none or it is damaged, which is removed then."""
        file = self.place(identity)
        if file is None or not file.is_file():
            return None
        try:
            load_features(file, identity, self.count)
        except UserError:
            file.unlink(missing_ok=True)
            return None
        with suppress(OSError):
            os.utime(file)  # what is used stays longest
        return file

    def keep(self, rows: Iterable[Candidate], features: Path) -> None:
        """Copies the features of the teacher's rows from a run's folder, if the cache can be written."""
        for row in rows:
            made = features / f"{slug(row.name)}.safetensors"
            if row.identity is None or not row.role.startswith("teacher") or not holds(made, row.identity, self.count):
                continue
            file = self.place(row.identity)
            if file is not None and not file.is_file():
                with suppress(OSError):
                    file.parent.mkdir(parents=True, exist_ok=True)
                    atomic_write(file, made.read_bytes())
                    trim(file.parent, limit())

    def place(self, identity: Identity) -> Path | None:
        """Returns where features of this identity belong, None for a teacher of whose samples not all is known."""
        if self.facts is None or limit() <= 0:
            return None
        described = json.dumps([self.facts, asdict(identity), self.count], sort_keys=True)
        return user_cache("features") / f"{hashlib.sha256(described.encode()).hexdigest()}.safetensors"

    @cached_property
    def facts(self) -> Mapping[str, Any] | None:
        """What samples depend on beside the identity of their features; None where code of the user's own is part."""
        teacher, commit = self.teacher, git_commit()
        conditioner = teacher.conditioner
        if not teacher.config or not is_known(teacher.codec) or (conditioner is not None and not is_known(conditioner)):
            return None
        if commit is not None and commit.endswith("-dirty"):
            return None  # the code is none that has a name
        return {
            "weights": weights_hash(teacher), "config": teacher.config, "codec": teacher.codec.config(),
            "conditioner": None if conditioner is None else conditioner.config(), "commit": commit,
            "versions": versions() | installed(LIBRARIES), "device": [self.device.type, device_name(self.device)],
            "arithmetic": [torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32],
        }  # fmt: skip


def is_known(part: object) -> bool:
    """Returns whether a codec or conditioner is a class of unistep's own, with what weights it has on the disk."""
    inner = part.codec if isinstance(part, ResizedCodec) else part
    on_disk = not isinstance(inner, VAECodec) or inner.source is not None
    return type(inner).__module__.startswith("unistep.") and on_disk


def weights_hash(teacher: Teacher) -> str:
    """Returns the sha256 over the denoiser's class and its parameters and buffers, as they are now."""
    digest = hashlib.sha256(type(teacher.denoiser).__qualname__.encode())
    for name, value in teacher.denoiser.state_dict().items():
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def installed(names: Iterable[str]) -> dict[str, str]:
    """Returns the versions of those libraries that are installed."""
    found: dict[str, str] = {}
    for name in names:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def limit() -> float:
    """Returns the bytes that all features together may take.

    Raises:
        UserError: for an environment variable that is no number.
    """
    value = os.environ.get(LIMIT) or str(USUAL_LIMIT)
    try:
        gib = float(value)
    except ValueError as error:
        raise UserError(f"{LIMIT}: found {value!r}, expected a number of GiB, 0 to keep nothing") from error
    return gib * 2**30 if gib > 0 else 0.0


def trim(folder: Path, most: float) -> None:
    """Removes the files that were used longest ago until the others fit; one that another process removes is gone."""
    found = []
    for file in folder.glob("*.safetensors"):
        with suppress(OSError):
            stat = file.stat()
            found.append((stat.st_mtime, stat.st_size, file))
    total = sum(size for _, size, _ in found)
    for _, size, file in sorted(found):
        if total <= most:
            return
        file.unlink(missing_ok=True)
        total -= size
