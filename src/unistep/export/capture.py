"""A held generator as a program of torch.export in real numbers: the form that is turned into ONNX."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from unistep.export.complex_pairs import InRealNumbers, is_complex


class SharedBatchDim(nn.Module):
    """(z, *conditions) -> module(z, *conditions), all with as many rows; to the tracer each has a number of its own."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, z: Tensor, *conditions: Tensor) -> Tensor:
        for condition in conditions:
            torch._check(condition.shape[0] == z.shape[0])
        return self.module(z, *conditions)


def trace(module: nn.Module, inputs: Sequence[Tensor], shapes: Sequence[Mapping[int, str]]) -> ExportedProgram:
    """Traces a module, and once more without complex numbers if there are any.

    Args:
        module: called as module(z, *conditions).
        inputs: an example of them.
        shapes: of each, the names of dimensions that may change.

    Raises:
        Exception: whatever the tracer raises, as where a dimension that may change was used as one number.
    """
    free = as_declared([dict.fromkeys(named, Dim.DYNAMIC) for named in shapes])
    program = torch.export.export(SharedBatchDim(module), tuple(inputs), dynamic_shapes=free, strict=False)
    if any(is_complex(node.meta.get("val")) for node in program.graph.nodes):
        plain = SharedBatchDim(InRealNumbers(program.module(check_guards=False)))  # type: ignore[arg-type]
        program = torch.export.export(plain, tuple(inputs), dynamic_shapes=free, strict=False)
    drop_idle_squeezes(program)
    return program


def drop_idle_squeezes(program: ExportedProgram) -> None:
    """Leaves out squeezes of dimensions larger than 1, which torch lets pass and ONNX refuses."""
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten.squeeze.dim:
            source, dimension = node.args
            size = source.meta["val"].shape[dimension]
            if isinstance(size, int) and size > 1:
                node.replace_all_uses_with(source)
                program.graph.erase_node(node)
    program.graph_module.recompile()


def as_declared(shapes: Sequence[Any]) -> tuple[Any, ...]:
    """One for each argument of forward(z, *conditions)."""
    return (shapes[0], tuple(shapes[1:])) if len(shapes) > 1 else (shapes[0],)
