"""A traced graph in real numbers: ONNX has no complex ones, in which some networks turn their rotary embeddings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from unistep.errors import UserError

PLACING = frozenset(
    (
        *("_to_copy", "alias", "clone", "contiguous", "copy_", "detach", "detach_", "lift_fresh_copy", "to"),
        *("cat", "chunk", "gather", "index", "index_select", "select", "slice", "split", "split_with_sizes", "stack"),
        *("constant_pad_nd", "expand", "flatten", "pad", "pad_sequence", "permute", "repeat", "reshape", "squeeze"),
        *("transpose", "unbind", "unflatten", "unsqueeze", "view", "zeros", "new_zeros", "zeros_like"),
    )
)
"""What moves numbers about and changes none: real and imaginary parts go the same way."""


@dataclass(frozen=True)
class RealImag:
    """re + i im, two real tensors of one shape."""

    re: Tensor
    im: Tensor


class InRealNumbers(nn.Module):
    """Runs a traced graph with every complex tensor in it as a `RealImag`; the numbers are the same.

    Args:
        graph: of torch.export, inputs and output real.

    Raises:
        UserError: when run, for an operation on complex numbers that is neither a product nor moves numbers about.
    """

    def __init__(self, graph: fx.GraphModule):
        super().__init__()
        self.traced = graph
        names = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
        tables = {name: attrgetter(name)(graph) for name in names}
        self.tables = {
            name: RealImag(table.real.clone(), table.imag.clone())
            for name, table in tables.items()
            if is_complex(table)
        }

    def forward(self, z: Tensor, *conditions: Tensor) -> Tensor:
        return Replay(self.traced, self.tables).run(z, *conditions)


class Replay(fx.Interpreter):
    """Node by node.

    Args:
        graph: what was traced.
        tables: its complex constants, by their names.
    """

    def __init__(self, graph: fx.GraphModule, tables: Mapping[str, RealImag]):
        super().__init__(graph)
        self.tables = tables

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self.tables[target] if target in self.tables else super().get_attr(target, args, kwargs)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        name = target.overloadpacket.__name__ if isinstance(target, torch._ops.OpOverload) else target.__name__
        call: Callable[..., Any] = super().call_function
        if name == "wrap_with_autocast" and not args[2]:  # device, type, on, cached, graph, its inputs
            return Replay(args[4], {}).run(*args[5:])
        values = [*pytree.tree_leaves((args, kwargs), is_leaf=is_pair)]
        if not any(is_pair(value) or is_complex(value) for value in values):
            return turned(name, args) if name == "view_as_complex" else call(target, args, kwargs)
        if name == "_assert_tensor_metadata":
            return None
        if name == "getitem":
            return call(target, args, kwargs)
        if name in ("view_as_real", "mul"):
            return turned(name, args)
        if name not in PLACING:
            raise UserError(f"found {name} of complex numbers, expected a product or what moves them about")
        return paired(*(call(target, part(args, i), part(kwargs, i)) for i in ("re", "im")))


def turned(name: str, args: tuple[Any, ...]) -> Any:
    """What brings numbers into the plane, multiplies them there and takes them out."""
    if name == "view_as_complex":
        return RealImag(*args[0].unbind(-1))
    if name == "view_as_real":
        return torch.stack((args[0].re, args[0].im), -1)
    a, b = args
    if is_pair(a) and is_pair(b):
        return RealImag(a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re)
    pair, factor = (a, b) if is_pair(a) else (b, a)
    return RealImag(pair.re * factor, pair.im * factor)


def is_pair(value: Any) -> bool:
    """Whether it stands for a complex tensor."""
    return isinstance(value, RealImag)


def is_complex(value: Any) -> bool:
    """A complex tensor, or the type of one."""
    if isinstance(value, torch.dtype):
        return value.is_complex
    return isinstance(value, Tensor) and value.is_complex()


def part(values: Any, which: str) -> Any:
    """Arguments with one part of each pair, and the parts' type where a type is asked for."""

    def of(value: Any) -> Any:
        if is_pair(value):
            return getattr(value, which)
        if isinstance(value, Tensor) and value.dtype is torch.int32:
            return value.long()  # an index: onnxruntime gathers by int64 only
        return value.to_real() if isinstance(value, torch.dtype) else value

    return pytree.tree_map(of, values, is_leaf=is_pair)


def paired(re: Any, im: Any) -> Any:
    """One pair, or a list of them where an operation returns several tensors."""
    return [RealImag(*both) for both in zip(re, im, strict=True)] if isinstance(re, list | tuple) else RealImag(re, im)
