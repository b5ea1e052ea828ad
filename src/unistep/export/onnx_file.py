"""The generator as an ONNX graph z, conditions -> x, with any number of rows."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unistep.diffusion.samplers import seeded_normal
from unistep.errors import UserError
from unistep.export.capture import as_declared, trace
from unistep.export.fresh import require_close, verify_in_subprocess
from unistep.export.held import FixedTimeGenerator
from unistep.export.one_row import OneRow
from unistep.export.row_by_row import OF_A_ROW, loop_over_rows
from unistep.export.safetensors_file import ROWS, named
from unistep.export.student import Student

FILE = "generator.onnx"
LIMIT = 1e-3
LARGEST = 1_500_000_000  # bytes of weights within the file; protocol buffers end at 2 GiB
NEEDED = ("onnx", "onnxscript", "onnxruntime")
LENGTH = 7  # of the prompt that is traced: of its branches networks take those for lengths that divide nothing
REFUSED = "onnx: this network makes no graph: {}; export to safetensors instead, if it is no module of your own"


def write_onnx(student: Student, draft: Path, contract: dict[str, Any]) -> dict[str, Any]:
    """Writes the graph and runs it with onnxruntime in a fresh process, at 1, 3 and 5 rows.

    Returns:
        What was verified; `inputs` are added to the contract.

    Raises:
        UserError: for a missing library, several steps, a network that makes no graph, or a difference above the limit.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(f"onnx: {', '.join(missing)} not installed; install with pip install 'unistep[onnx]'")
    z = seeded_normal(torch.arange(ROWS), student.shape)
    cond = student.cond(student.labels(ROWS))
    inputs = {"z": z, **named(cond)}
    contract["inputs"] = {name: describe(tensor) for name, tensor in inputs.items()}
    samples = student.sample(z, cond)  # before the tracing: tables of positions are made by the first call
    write_graph(FixedTimeGenerator(student, [name for name in inputs if name != "z"]).eval(), inputs, draft / FILE)
    found = verify_in_subprocess("onnx", draft / FILE, {**inputs, "samples": samples}, {})
    require_close(found, LIMIT, "onnx")
    return {**found["differences"], "limit": LIMIT, "rows": [1, 3, ROWS], "with": f"onnxruntime {found['with']}"}


def describe(tensor: torch.Tensor) -> dict[str, Any]:
    """Type and shape, the rows open."""
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": ["batch", *tensor.shape[1:]]}


def write_graph(held: FixedTimeGenerator, inputs: dict[str, torch.Tensor], file: Path) -> None:
    """Traces and writes: all rows at once, or in a loop where the shapes inside depend on the length of each prompt.

    Raises:
        UserError: in the exporter's words, where it cannot.
    """
    with torch.no_grad(), silent():
        try:
            return write_program(held, inputs, [{0: "batch"}] * len(inputs), file)
        except Exception as error:  # whatever the tracer and the converter raise
            words = " ".join(str(error.__cause__ or error).split())
            if not {"text", "mask"} <= set(inputs):
                raise UserError(REFUSED.format(words[:300])) from error
        try:
            row = {OF_A_ROW + name: tensor[:1] for name, tensor in inputs.items() if name != "mask"}
            text = row[f"{OF_A_ROW}text"]
            row[f"{OF_A_ROW}text"] = text.new_zeros(1, LENGTH, text.shape[-1])
            write_program(OneRow(held), row, [{1: "length"} if name.endswith("text") else {} for name in row], file)
            loop_over_rows(file, inputs)
        except Exception as error:
            raise UserError(REFUSED.format(words[:300])) from error


def write_program(
    module: nn.Module, inputs: dict[str, torch.Tensor], shapes: Sequence[dict[int, str]], file: Path
) -> None:
    """One graph, whose inputs have these names and whose output is x, with what stands before the input z."""
    size = sum(p.numel() * p.element_size() for p in module.parameters())
    example = tuple(inputs.values())
    torch.onnx.export(
        trace(module, example, shapes), example, str(file), input_names=list(inputs),
        output_names=[next(iter(inputs)).removesuffix("z") + "x"], dynamo=True, dynamic_shapes=as_declared(shapes),
        external_data=size > LARGEST, verbose=False,
    )  # fmt: skip


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """The exporter talks to the terminal and warns about itself; none of it is the user's."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)  # what it raises says the same
    try:
        spoken = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(spoken), contextlib.redirect_stderr(spoken):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
