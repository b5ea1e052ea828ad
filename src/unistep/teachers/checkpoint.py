"""unistep's own checkpoints: a folder with model.safetensors and config.json, nothing executed on load."""

import filecmp
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from unistep.errors import UserError
from unistep.io.atomic import clear_leftovers, put_in_place
from unistep.io.locking import locked
from unistep.io.text_files import parse_json, read_json
from unistep.networks.generator import Generator
from unistep.networks.preconditioning import EDMDenoiser
from unistep.networks.state_dict import load_strictly, require_finite, require_same_tensors
from unistep.networks.weights_file import files_sha256
from unistep.teachers.adapters import StoredAdapter, adapter_of, merged_denoiser
from unistep.teachers.checkpoint_config import (
    denoiser_from_config,
    is_own_class,
    naming,
    require_types,
    steps_from_config,
)
from unistep.teachers.codecs import CODECS, codec_from_config
from unistep.teachers.conditioners import CONDITIONERS, conditioner_from_config
from unistep.teachers.diffusers.denoiser import DiffusersDenoiser
from unistep.teachers.teacher import Codec, Conditioner, Teacher

FORMAT = "unistep-denoiser/1"
FILES = ("model.safetensors", "config.json")
SINGLE_FILE = "generator.safetensors"  # in the folder of an export to safetensors


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
    with locked(folder, beside=True):
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
    return filled_denoiser(config, state, folder), config, digest


def filled_denoiser(
    config: dict[str, Any], state: dict[str, torch.Tensor], folder: Path
) -> EDMDenoiser | DiffusersDenoiser:
    """The denoiser that a folder's configuration describes, with its weights.

    Raises:
        UserError: for values that make no denoiser, or weights that do not fit it; before memory is taken for either.
    """
    with torch.device("meta"):
        described = denoiser_from_config(config, folder / "config.json")
    require_same_tensors(described, state, folder / "model.safetensors")
    denoiser = denoiser_from_config(config, folder / "config.json")
    load_strictly(denoiser, state, folder / "model.safetensors")
    return denoiser


def read_checkpoint(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor], str]:
    """Configuration, tensors and sha256 of a checkpoint folder, or of the single file that `export` makes of one.

    Raises:
        UserError: for a missing or damaged file, or a run's generator that is not the one in its record.
    """
    if folder.is_file():
        return read_single_file(folder)
    weights, description = folder / "model.safetensors", folder / "config.json"
    for file in (description, weights):
        if not file.is_file():
            raise UserError(f"{file}: not found; expected a checkpoint folder with model.safetensors and config.json")
    config = read_json(description, "restore the file")
    try:
        state = load_file(str(weights))
    except SafetensorError as error:
        raise UserError(f"{weights}: no readable safetensors file ({error}); restore the file") from error
    found = config.get("format")
    if found != FORMAT:
        raise UserError(f"{description}: found format {found!r}, expected {FORMAT!r}")
    digest = files_sha256(weights, description)
    require_recorded(folder, digest)
    return config, state, digest


def checkpoint_sha256(folder: Path) -> str:
    """Returns the sha256 of a checkpoint folder, over its weights and its configuration."""
    return files_sha256(*(folder / name for name in FILES))


def read_single_file(file: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor], str]:
    """The same from one safetensors file whose header holds the configuration."""
    try:
        with safe_open(str(file), framework="pt") as opened:
            text = (opened.metadata() or {}).get("config", "null")
        state = load_file(str(file))
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{file}: no readable safetensors file ({error}); export it again") from error
    config = parse_json(text, file, "export it again")
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise UserError(
            f"{file}: found no configuration of format {FORMAT!r} in its header, expected a file that "
            "`unistep export --to safetensors` wrote"
        )
    return config, state, files_sha256(file)


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
        folder: a run, its `generator` folder, or the file that `export` made of it. An adapter (`lora`) is merged with
            its teacher's weights, which must be the ones it was trained on; the configuration returned is the merged
            generator's.
        teacher: needed only where the teacher was your own module, whose code unistep cannot rebuild.

    Raises:
        UserError: for a missing or damaged folder, one that holds no generator, or a missing teacher.
    """
    folder, config, state, digest = read_generator(folder)
    with naming(folder / "config.json"):
        require_types(config)
        steps = steps_from_config(config.get("steps"))
    adapter = adapter_of(config, state, folder)
    if adapter is not None:
        denoiser = merged_denoiser(adapter, config, folder, teacher)
    elif "network" in config:
        denoiser = filled_denoiser(config, state, folder)
    else:
        denoiser = copied_network(folder, teacher)
        load_strictly(denoiser, state, folder / "model.safetensors")
    process: Any = denoiser.process if "network" in config or teacher is None else teacher.process
    whole = {key: value for key, value in config.items() if key != "lora"}
    return Generator(denoiser, process, config["t_init"], steps).eval(), whole, digest


def copied_network(folder: Path, teacher: Teacher | None) -> nn.Module:
    """A copy of the teacher's network, for a generator whose configuration describes none.

    Raises:
        UserError: for a missing teacher.
    """
    if teacher is None:
        raise UserError(f"{folder}: its teacher was a module of your own; give it in Python, as `teacher`")
    return teacher.trainable_copy()


def read_generator(folder: str | Path) -> tuple[Path, dict[str, Any], dict[str, torch.Tensor], str]:
    """The generator's own folder or file, its configuration, tensors and sha256.

    Raises:
        UserError: for a missing or damaged folder, or one that holds no generator.
    """
    folder = own_folder(folder)
    config, state, digest = read_checkpoint(folder)
    require_finite(state, folder)
    if "t_init" not in config:
        raise UserError(
            f"{folder}: holds a denoiser, not a generator; expected a distilled run or its generator folder"
        )
    return folder, config, state, digest


def require_recorded(folder: Path, digest: str) -> None:
    """Compares a run's generator with the sha256 in its run.json; runs of earlier versions have none there.

    Raises:
        UserError: if the generator is another one.
    """
    file = folder.parent / "run.json"
    if folder.name != "generator" or not file.is_file():
        return
    recorded = read_json(file, "delete this one file, it is only a record").get("generator")
    expected = recorded.get("sha256", digest) if isinstance(recorded, dict) else digest
    if expected != digest:
        raise UserError(
            f"{folder}: found sha256 {digest[:12]}, expected {str(expected)[:12]} as in {file}: it was changed "
            "after its training, or its export was interrupted; run the run's command again, which writes it anew"
        )


def read_adapter(folder: str | Path) -> StoredAdapter | None:
    """The adapter that a generator is stored as, None where it is whole weights, which are not read then.

    Raises:
        UserError: as `read_generator`.
    """
    folder = own_folder(folder)
    described = folder / "config.json"
    if folder.is_file() or (described.is_file() and b'"lora"' not in described.read_bytes()):
        return None
    _, config, state, _ = read_generator(folder)
    return adapter_of(config, state, folder)


def own_folder(folder: str | Path) -> Path:
    """Finds the generator's folder in a run, its file in an export to safetensors, or returns the place itself."""
    folder = Path(folder)
    inside = (folder / "generator", folder / SINGLE_FILE)
    return next((place for place in inside if place.exists()), folder)


def codec_and_conditioner(config: dict[str, Any], teacher: Teacher | None) -> tuple[Codec, Conditioner | None]:
    """Returns what a generator's samples are decoded by and conditioned on: the teacher's own, if one is given.

    Args:
        config: of the generator's folder.
        teacher: whose codec and conditioner are taken, also where their classes are the user's own; None rebuilds
            those that the configuration names.

    Raises:
        UserError: for a teacher of samples of another shape, or classes that only a teacher has.
    """
    if teacher is None:
        for key, known in (("codec", CODECS), ("conditioner", CONDITIONERS)):
            if is_own_class(config, key, known):
                raise UserError(
                    f"{key}.type: found {config[key]['type']!r}, a class of your own; give the teacher that has it "
                    f"(teacher= in Python), or expected one of {', '.join(known)}"
                )
        return codec_from_config(config["codec"]), conditioner_from_config(config.get("conditioner"))
    if tuple(teacher.shape) != tuple(config["shape"]):
        raise UserError(
            f"teacher: found {teacher.source} with samples of shape {list(teacher.shape)}, expected the generator's "
            f"{list(config['shape'])}; give the teacher that it was distilled from"
        )
    return teacher.codec, teacher.conditioner
