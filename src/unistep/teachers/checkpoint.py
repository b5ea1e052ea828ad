"""unistep's own checkpoints: a folder with model.safetensors and config.json, nothing executed on load."""

import filecmp
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from unistep.atomic import clear_leftovers, put_in_place
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
    save_state(folder, plain_state(denoiser, dtype), config)


def plain_state(module: nn.Module, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    """Contiguous tensors on the CPU by name, floating ones in `dtype` where it is given."""
    return {
        k: v.detach().cpu().contiguous().to(dtype if dtype and v.is_floating_point() else v.dtype)
        for k, v in module.state_dict().items()
    }


def save_state(folder: Path, state: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
    """Writes tensors and configuration as a folder: a reader finds both files of one call, never parts.

    The files are written beside the folder and take its place when they are whole, see `atomic.put_in_place`. A folder
    that holds the same bytes already is left alone. There must be one writer at a time.

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
    put_in_place(temporary, folder)


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
    """Configuration, tensors and sha256 of a checkpoint folder, or of the single file that `export` makes of one.

    Raises:
        UserError: for a missing or damaged file.
    """
    if folder.is_file():
        return read_single_file(folder)
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


def read_single_file(file: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor], str]:
    """The same from one safetensors file whose header holds the configuration."""
    try:
        with safe_open(str(file), framework="pt") as opened:
            config = json.loads((opened.metadata() or {}).get("config", "null"))
        state = load_file(str(file))
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{file}: no readable safetensors file ({error}); export it again") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise UserError(
            f"{file}: found no configuration of format {FORMAT!r} in its header, expected a file that "
            "`unistep export --to safetensors` wrote"
        )
    return config, state, hashlib.sha256(file.read_bytes()).hexdigest()


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
        folder: a run, its `generator` folder, or the file that `export` made of it.
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
