"""A pipeline's denoiser alone, read as an earlier run read it: the weights that an adapter belongs to."""

from collections.abc import Mapping
from typing import Any

from unistep.errors import UserError
from unistep.io.arguments import require_choice
from unistep.teachers.diffusers.denoiser import DiffusersDenoiser
from unistep.teachers.diffusers.folder import DTYPES, load_component, open_folder
from unistep.teachers.diffusers.load import file_identity
from unistep.teachers.diffusers.rebuild import denoiser_from_config

READING = ("network", "process", "reading", "shape")  # what a teacher's sha256 covers beside its files


def load_base(spec: str, dtype: str, sha256: str, config: Mapping[str, Any]) -> DiffusersDenoiser:
    """The denoiser of a pipeline, in float32.

    Args:
        spec: the pipeline's folder, or OWNER/NAME on the hub.
        dtype: the type that its weights are rounded to first, as the teacher's were.
        sha256: of the teacher, over files and reading.
        config: how it is read.

    Raises:
        UserError: if the pipeline is not there, or is not the one with that sha256.
    """
    require_choice(dtype, DTYPES, "lora.base.dtype")
    missing = [key for key in READING if key not in config]
    if missing:
        raise UserError(f"{missing[0]}: missing, a value is needed; restore the file")
    folder = open_folder(spec)
    found = file_identity(folder, dtype, {key: config[key] for key in READING})
    if found != sha256:
        raise UserError(
            f"{folder.path}: found a pipeline with sha256 {found[:12]}, expected {sha256[:12]}, the one that the "
            "adapter was trained on; restore its files"
        )
    return denoiser_from_config(config, load_component(spec, folder.denoiser, dtype)).float()
