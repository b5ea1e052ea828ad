"""A fresh process that opens an export with a plain library and says how far its samples are from ours."""

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import save_file
from torch import Tensor

from unistep.errors import UserError, shortened

Form = Literal["diffusers", "onnx", "safetensors"]
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DIFFUSERS_VERBOSITY": "error"}
# The switches of `unistep.SWITCHES` are in the environment already and reach the fresh process with it.


def verify_in_subprocess(
    form: Form, place: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Runs `fresh_FORM.py PLACE ASKED`, where ASKED is a safetensors file of the tensors with the facts in its header.

    Args:
        form: which script; but for the one of safetensors, none imports unistep.
        place: what was exported.
        tensors: on the CPU: noise, expected samples.
        facts: plain values, such as the arguments of a call.

    Returns:
        What the script printed last, a JSON object of its figures.

    Raises:
        UserError: if it fails, in the last words it said.
    """
    script = Path(__file__).with_name(f"fresh_{form}.py")
    draft = place if place.is_dir() else place.parent  # swept by the next export, should this one be killed
    with tempfile.TemporaryDirectory(dir=draft, prefix=".asked-") as folder:
        asked = Path(folder) / "asked.safetensors"
        packed = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(packed, str(asked), metadata={"facts": json.dumps(facts)})
        command = [sys.executable, "-P", str(script), str(place), str(asked)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **OFFLINE}, check=False)
    if done.returncode:
        words = last_error_line(done.stderr) or f"exit code {done.returncode}"
        raise UserError(f"{form}: a fresh process cannot sample the export: {words}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def last_error_line(traceback: str) -> str:
    """What was raised, in one line: all behind the last line of code, for it may take several."""
    lines = traceback.strip().splitlines()
    behind = 1 + max((i for i, line in enumerate(lines) if line.startswith('  File "')), default=len(lines) - 2)
    return shortened(" ".join(itertools.dropwhile(lambda line: line.startswith("    "), lines[behind:])))


def require_close(found: Mapping[str, Any], limit: float, form: Form) -> None:
    """Every difference must be within the limit.

    Raises:
        UserError: naming the figure.
    """
    for name, difference in found["differences"].items():
        if not difference <= limit:  # also not a number
            raise UserError(
                f"{form}: found {name} that differ by {difference:.2g} from unistep's from the same noise, expected at "
                f"most {limit:g}; nothing was exported"
            )
