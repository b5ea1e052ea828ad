"""The generator as one safetensors file: weights, and configuration and contract in its header."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from unistep.diffusion.samplers import seeded_normal
from unistep.errors import UserError
from unistep.export.fresh import require_close, verify_in_subprocess
from unistep.export.student import Student
from unistep.networks.weights_file import sort_metadata
from unistep.teachers.checkpoint import FORMAT, SINGLE_FILE, plain_state
from unistep.types import Cond

LIMIT = 1e-4
ROWS = 5


def write_safetensors(student: Student, draft: Path, contract: dict[str, Any]) -> dict[str, Any]:
    """Writes the file and opens it in a fresh process.

    Returns:
        What was verified.

    Raises:
        UserError: for a network of the user's own, or a difference above the limit.
    """
    require_rebuildable(student)
    config = {"format": FORMAT, **student.config}
    metadata = {"config": json.dumps(config), "contract": json.dumps(contract), "format": "pt"}
    save_file(plain_state(student.generator.denoiser), str(draft / SINGLE_FILE), metadata=metadata)
    sort_metadata(draft / SINGLE_FILE)
    z = seeded_normal(torch.arange(ROWS), student.shape)
    cond = student.cond(student.labels(ROWS))
    found = verify_in_subprocess(
        "safetensors", draft / SINGLE_FILE, {"z": z, **named(cond), "samples": student.sample(z, cond)}, {}
    )
    require_close(found, LIMIT, "safetensors")
    return {**found["differences"], "limit": LIMIT, "with": f"unistep {found['with']}, fresh process"}


def require_rebuildable(student: Student) -> None:
    """The network must be one that a configuration describes.

    Raises:
        UserError: for a module of the user's own.
    """
    if "network" not in student.config:
        raise UserError(
            f"{student.name}: its network is a module of your own, which another process cannot rebuild; "
            "export with --to onnx, or save generator.denoiser.state_dict() beside your code"
        )


def named(cond: Cond) -> dict[str, torch.Tensor]:
    """A condition as tensors by name; class indices are `label`."""
    if cond is None:
        return {}
    return {"label": cond} if isinstance(cond, torch.Tensor) else dict(cond)
