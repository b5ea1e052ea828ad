"""The generator as an ONNX graph z, conditions -> x, with any number of rows."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from unistep.errors import UserError
from unistep.export.fresh import ask, require_close
from unistep.export.held import Held
from unistep.export.safetensors_file import ROWS, named, require_rebuildable
from unistep.export.student import Student
from unistep.samplers import seeded_normal

FILE = "generator.onnx"
LIMIT = 1e-3
LARGEST = 1_500_000_000  # bytes of weights within the file; protocol buffers end at 2 GiB
NEEDED = ("onnx", "onnxscript", "onnxruntime")


def write_onnx(student: Student, draft: Path, contract: dict[str, Any]) -> dict[str, Any]:
    """Writes the graph and runs it with onnxruntime in a fresh process, at 1, 3 and 5 rows.

    Returns:
        What was verified; `inputs` are added to the contract.

    Raises:
        UserError: for a missing library, several steps, a network that makes no graph, or a difference above the limit.
    """
    require_rebuildable(student)
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(f"onnx: {', '.join(missing)} not installed; install with pip install 'unistep[onnx]'")
    z = seeded_normal(torch.arange(ROWS), student.shape)
    cond = student.cond(student.labels(ROWS))
    inputs = {"z": z, **named(cond)}
    contract["inputs"] = {name: describe(tensor) for name, tensor in inputs.items()}
    write_graph(Held(student, [name for name in inputs if name != "z"]).eval(), inputs, draft / FILE)
    found = ask("onnx", draft / FILE, {**inputs, "samples": student.sample(z, cond)}, {})
    require_close(found, LIMIT, "onnx")
    return {**found["differences"], "limit": LIMIT, "rows": [1, 3, ROWS], "with": f"onnxruntime {found['with']}"}


def describe(tensor: torch.Tensor) -> dict[str, Any]:
    """Type and shape, the rows open."""
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": ["batch", *tensor.shape[1:]]}


def write_graph(held: Held, inputs: dict[str, torch.Tensor], file: Path) -> None:
    """Traces and writes.

    Raises:
        UserError: in the exporter's words, where it cannot.
    """
    rows = {0: torch.export.Dim("batch", min=1, max=4096)}
    shapes = {"z": rows} | ({"conditions": (rows,) * (len(inputs) - 1)} if len(inputs) > 1 else {})
    size = sum(p.numel() * p.element_size() for p in held.parameters())
    try:
        with torch.no_grad(), silent():
            torch.onnx.export(
                held, tuple(inputs.values()), str(file), input_names=list(inputs), output_names=["x"], dynamo=True,
                dynamic_shapes=shapes, external_data=size > LARGEST, verbose=False,
            )  # fmt: skip
    except Exception as error:  # whatever the tracer and the converter raise
        words = " ".join(str(error.__cause__ or error).split())
        raise UserError(f"onnx: this network makes no graph: {words[:300]}; export to safetensors instead") from error


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """The exporter talks to the terminal and warns about itself; none of it is the user's."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
