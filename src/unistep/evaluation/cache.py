"""Feature files: what the judge saw of a model's samples, so that an unchanged row need not be sampled again."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from unistep.errors import UserError
from unistep.evaluation.extractors.base import Observed
from unistep.io.atomic import atomic_write
from unistep.io.text_files import parse_json

FORMAT = "unistep-features/1"
ALIGNMENT = "alignment"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What the features of a row depend on.

    Attributes:
        teacher: sha256 of the model that was sampled.
        sampler: plain values that describe how (name, steps, options, guidance).
        judge: sha256 of the judge.
        first_seed: seed of the first row; row i has seed first_seed + i.
    """

    teacher: str
    judge: str
    first_seed: int
    sampler: Mapping[str, Any] = field(default_factory=dict)


def save_features(path: Path, seen: Observed, identity: Identity) -> None:
    """Writes features as float16 with labels, predictions and identity; whole or not at all."""
    tensors = {
        "features": seen.features.half().contiguous(),
        "labels": seen.labels.to(torch.int32),
        "predicted": seen.predicted.to(torch.int32),
        **({} if seen.alignment is None else {ALIGNMENT: seen.alignment.float().contiguous()}),
    }
    description = {"format": FORMAT, "count": len(seen), "content": content_hash(tensors), **asdict(identity)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, save(tensors, {"description": json.dumps(description, sort_keys=True)}))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); expected a writable folder") from error


def load_features(path: Path, identity: Identity, count: int) -> Observed:
    """The first `count` rows of a feature file.

    Raises:
        UserError: naming the file and what differs: format, content, teacher, sampler, judge, seeds or count.
    """
    tensors, description = read(path)
    if description.get("format") != FORMAT:
        raise UserError(f"{path}: found format {description.get('format')!r}, expected {FORMAT!r}; recompute it")
    if description["content"] != content_hash(tensors):
        raise UserError(f"{path}: the content does not match its checksum; restore the file or recompute it")
    for name, wanted in asdict(identity).items():
        found = description.get(name)
        if found != json.loads(json.dumps(wanted)):
            label = "seeds from" if name == "first_seed" else name
            raise UserError(f"{path}: found features of {label} {found}, expected {wanted}; recompute (--recompute)")
    if description["count"] < count:
        raise UserError(f"{path}: found {description['count']} seeds, expected {count}; recompute (--recompute)")
    return Observed(
        features=tensors["features"].float(),
        labels=tensors["labels"].long(),
        predicted=tensors["predicted"].long(),
        alignment=tensors.get(ALIGNMENT),
    ).head(count)


def holds(path: Path, identity: Identity, count: int) -> bool:
    """Whether a feature file is there, of this very row and long enough; what else is in it `load_features` checks.

    Raises:
        UserError: if it cannot be read.
    """
    if not path.is_file():
        return False
    _, description = read(path)
    same = all(description.get(k) == json.loads(json.dumps(wanted)) for k, wanted in asdict(identity).items())
    return same and description.get("count", 0) >= count


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and description of a feature file."""
    try:
        with safe_open(path, "pt") as file:
            also = [name for name in file.keys() if name == ALIGNMENT]
            tensors = {name: file.get_tensor(name) for name in ("features", "labels", "predicted", *also)}
            text = (file.metadata() or {}).get("description", "{}")
    except FileNotFoundError as error:
        raise UserError(f"{path}: found no features there; recompute them (--recompute)") from error
    except SafetensorError as error:
        raise UserError(f"{path}: found no readable feature file ({error}); recompute it (--recompute)") from error
    description = parse_json(text, path, "recompute it (--recompute)")
    if not isinstance(description, dict):
        raise UserError(f"{path}: found no description of features; recompute it (--recompute)")
    return tensors, description


def content_hash(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 over names and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()
