"""unistep's own checkpoints: a folder with model.safetensors and config.json, nothing executed on load."""

import filecmp
import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from unistep.errors import UserError
from unistep.networks.generator import Generator
from unistep.networks.preconditioning import EDMDenoiser
from unistep.networks.state_dict import load_strictly
from unistep.process.base import NoiseProcess
from unistep.teachers.checkpoint_config import denoiser_from_config, naming, require_types, steps_from_config
from unistep.teachers.codecs import codec_from_config
from unistep.teachers.conditioners import conditioner_from_config
from unistep.teachers.diffusers.denoiser import DiffusersDenoiser
from unistep.teachers.teacher import Teacher

FORMAT = "unistep-denoiser/1"
FILES = ("model.safetensors", "config.json")


def save_denoiser(folder: Path, denoiser: nn.Module, config: dict[str, Any], dtype: torch.dtype | None = None) -> None:
    """Writes a denoiser as a folder, see `save_state`.

    Args:
        folder: where; replaced if it exists.
        denoiser: the module whose parameters are stored.
        config: network, process, sigma_data, shape, conditioner, codec; a generator's `t_init` and `steps` too.
        dtype: storage type of floating-point weights; None keeps theirs.
    """
    state = {
        k: v.detach().cpu().contiguous().to(dtype if dtype and v.is_floating_point() else v.dtype)
        for k, v in denoiser.state_dict().items()
    }
    save_state(folder, state, config)


def save_state(folder: Path, state: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
    """Writes tensors and configuration as a folder: a reader finds both files of one call, never parts.

    The files are written beside the folder and flushed to the disk; then two renames put an earlier folder aside and
    the new one in its place. Between the two there is no folder: a writer that is killed just there leaves the earlier
    one under a hidden name, and the next call puts it back before it begins. A folder that holds the same bytes already
    is left alone. There must be one writer at a time.

    Args:
        folder: where; replaced if it exists.
        state: contiguous tensors on the CPU, by name.
        config: plain values; the format's name is added.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(folder)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    save_file(state, str(temporary / "model.safetensors"))
    (temporary / "config.json").write_text(json.dumps({"format": FORMAT, **config}, indent=2) + "\n")
    if filecmp.cmpfiles(temporary, folder, FILES, shallow=False)[0] == list(FILES):
        shutil.rmtree(temporary)
        return
    for name in FILES:
        with (temporary / name).open("rb+") as file:
            os.fsync(file.fileno())
    if folder.exists():
        old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
        os.replace(folder, old)
        os.replace(temporary, folder)
        shutil.rmtree(old)
    else:
        os.replace(temporary, folder)


def clear_leftovers(folder: Path) -> None:
    """Undoes what a writer that was killed or had no room left behind; the earlier folder comes back if it is gone."""
    ours = re.compile(rf"\.{re.escape(folder.name)}\.\d+\.(tmp|old)")
    for leftover in sorted(folder.parent.iterdir()):
        if not ours.fullmatch(leftover.name):
            continue
        if leftover.suffix == ".old" and not folder.exists():
            os.replace(leftover, folder)
        else:
            shutil.rmtree(leftover)


def load_denoiser(folder: Path) -> tuple[EDMDenoiser | DiffusersDenoiser, dict[str, Any], str]:
    """A denoiser, its configuration and the sha256 over both files.

    Raises:
        UserError: for a missing or damaged file, values that make no denoiser, or weights that do not fit it.
    """
    config, state, digest = read_checkpoint(folder)
    denoiser = denoiser_from_config(config, folder / "config.json")
    load_strictly(denoiser, state, folder / "model.safetensors")
    return denoiser, config, digest


def read_checkpoint(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor], str]:
    """Configuration, tensors and sha256 of a checkpoint folder.

    Raises:
        UserError: for a missing or damaged file.
    """
    weights, description = folder / "model.safetensors", folder / "config.json"
    for file in (description, weights):
        if not file.is_file():
            raise UserError(f"{file}: not found; expected a checkpoint folder with model.safetensors and config.json")
    try:
        config = json.loads(description.read_text())
        state = load_file(str(weights))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{description}: no readable JSON ({error}); restore the file") from error
    except SafetensorError as error:
        raise UserError(f"{weights}: no readable safetensors file ({error}); restore the file") from error
    found = config.get("format") if isinstance(config, dict) else None
    if found != FORMAT:
        raise UserError(f"{description}: found format {found!r}, expected {FORMAT!r}")
    return config, state, hashlib.sha256(weights.read_bytes() + description.read_bytes()).hexdigest()


def teacher_from_folder(folder: Path) -> Teacher:
    """A frozen teacher from a checkpoint folder."""
    denoiser, config, digest = load_denoiser(folder)
    return teacher_from_config(denoiser, config, source=str(folder), sha256=digest)


def teacher_from_config(
    denoiser: EDMDenoiser | DiffusersDenoiser, config: dict[str, Any], source: str, sha256: str
) -> Teacher:
    """A frozen teacher around a denoiser whose weights are loaded."""
    return Teacher(
        denoiser=denoiser,
        process=denoiser.process,
        weighting=denoiser.weighting,
        shape=tuple(config["shape"]),
        codec=codec_from_config(config["codec"]),
        conditioner=conditioner_from_config(config.get("conditioner")),
        source=source,
        sha256=sha256,
        config=config,
    )


def load_generator(folder: str | Path, teacher: Teacher | None = None) -> tuple[Generator, dict[str, Any], str]:
    """An exported generator, its configuration and its sha256.

    Args:
        folder: a run, or its `generator` folder.
        teacher: needed only where the teacher was your own module, whose code unistep cannot rebuild.

    Raises:
        UserError: for a missing or damaged folder, one that holds no generator, or a missing teacher.
    """
    folder = Path(folder)
    folder = folder / "generator" if (folder / "generator").is_dir() else folder
    config, state, digest = read_checkpoint(folder)
    if "t_init" not in config:
        raise UserError(
            f"{folder}: holds a denoiser, not a generator; expected a distilled run or its generator folder"
        )
    if "network" in config:
        denoiser = denoiser_from_config(config, folder / "config.json")
        process: NoiseProcess = denoiser.process
    elif teacher is not None:
        with naming(folder / "config.json"):
            require_types(config)
        denoiser, process = teacher.trainable_copy(), teacher.process
    else:
        raise UserError(f"{folder}: its teacher was a module of your own; give it as load_generator(folder, teacher)")
    load_strictly(denoiser, state, folder / "model.safetensors")
    with naming(folder / "config.json"):
        steps = steps_from_config(config.get("steps"))
    return Generator(denoiser, process, config["t_init"], steps).eval(), config, digest
