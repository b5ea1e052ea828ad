"""Opens an export again as something that is sampled: a safetensors file, a diffusers folder or an ONNX graph."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import unistep.export.contract as contracts
import unistep.export.onnx_file as onnx_file
from unistep.errors import UserError, one_line
from unistep.export.safetensors_file import named
from unistep.io.arguments import require_type
from unistep.io.optional import import_optional
from unistep.io.text_files import read_json
from unistep.networks.generator import Generator
from unistep.networks.state_dict import load_strictly
from unistep.teachers.checkpoint import SINGLE_FILE, load_generator
from unistep.teachers.checkpoint_config import denoiser_from_config, naming, require_types, steps_from_config
from unistep.teachers.diffusers.folder import open_folder
from unistep.teachers.teacher import Teacher
from unistep.types import Cond

SampleModel = Callable[[Tensor, Cond, Tensor], Tensor]
"""(z [b, *dims], cond, seeds [b]) -> x [b, *dims]."""


def is_export(folder: Path) -> bool:
    """Returns whether a folder is one that `export_generator` wrote."""
    return (folder / contracts.FILE).is_file()


def open_export(folder: Path, teacher: Teacher | None, device: torch.device) -> tuple[SampleModel, dict[str, Any]]:
    """Opens an export for sampling.

    Args:
        folder: that `export_generator` wrote.
        teacher: as for `load_generator`.
        device: where it samples; onnxruntime stays on the CPU.

    Returns:
        The model, and the configuration of the generator that was exported.

    Raises:
        UserError: for a form that is not sampled by unistep, a missing library, or a damaged file.
    """
    if (folder / SINGLE_FILE).is_file():
        generator, config, _ = load_generator(folder / SINGLE_FILE, teacher)
        return generator.to(device).sample, config
    config = exported_config(folder / contracts.FILE)
    if (folder / onnx_file.FILE).is_file():
        return open_graph(folder / onnx_file.FILE), config
    if (folder / "model_index.json").is_file():
        return open_pipeline(folder, config).to(device).sample, from_pipeline(config, folder)
    raise UserError(
        f"{folder}: found an export that unistep does not sample, expected one to safetensors, diffusers or onnx; "
        "sample the run that it was exported from"
    )


def exported_config(file: Path) -> dict[str, Any]:
    """Reads the generator's configuration from a sampling contract.

    Raises:
        UserError: for a damaged file, or a contract without it.
    """
    try:
        config = read_json(file, "export again").get("generator")
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error}); export again") from error
    if not isinstance(config, dict) or not {"shape", "codec", "t_init"} <= config.keys():
        raise UserError(f"{file}: found no configuration of a generator, expected one; export again with this version")
    with naming(file):
        require_types(config)
    return config


def open_graph(file: Path) -> SampleModel:
    """Opens an ONNX graph with onnxruntime.

    Raises:
        UserError: if onnxruntime is not installed, or refuses the file.
    """
    runtime = import_optional("onnxruntime", "onnx")
    try:
        session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes, which share no base but this
        raise UserError(f"{file}: onnxruntime does not open it ({one_line(error)}); export again") from error

    def sample(z: Tensor, cond: Cond, seeds: Tensor) -> Tensor:
        inputs = {"z": z, **named(cond)}
        (x,) = session.run(None, {name: tensor.cpu().numpy() for name, tensor in inputs.items()})
        return torch.from_numpy(np.asarray(x)).to(z)

    return sample


def open_pipeline(folder: Path, config: dict[str, Any]) -> Generator:
    """Opens the network of a pipeline's folder as the generator that it was exported from.

    Raises:
        UserError: if the folder cannot be loaded or holds another network.
    """
    require_type(config.get("reading"), dict, f"{folder / contracts.FILE}: generator.reading")
    found = open_folder(str(folder))
    network: Any = getattr(found.load("float32", (found.denoiser,)), found.denoiser)
    denoiser = denoiser_from_config(config, folder / contracts.FILE)
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    load_strictly(denoiser, state, folder / found.denoiser)
    return Generator(denoiser, denoiser.process, config["t_init"], steps_from_config(config.get("steps"))).eval()


def from_pipeline(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Returns the configuration with the VAE of the exported folder in the place of the teacher's."""
    codec = config["codec"]
    return {**config, "codec": {**codec, "source": str(folder)} if codec.get("type") == "vae" else codec}
