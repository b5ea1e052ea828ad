"""One row at the length of its own prompt, for networks that count the tokens of each prompt before they read it."""

import builtins
import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any
from unittest.mock import patch

import torch
from torch import SymInt, Tensor, nn
from torch.overrides import TorchFunctionMode

from unistep.export.held import FixedTimeGenerator


class OneRow(nn.Module):
    """(z [1, *dims], conditions [1, ...] but for the mask) -> x_0 [1, *dims]; the text has no padding.

    The tracer knows no shapes that depend on what a mask says. Without padding nothing does: the mask is whole, and the
    length of the prompt is that of the text, which a graph may leave open.

    Args:
        held: with `mask` and `text` among its names.
    """

    def __init__(self, held: FixedTimeGenerator):
        super().__init__()
        self.held, self.names = held, tuple(name for name in held.names if name != "mask")

    def forward(self, z: Tensor, *conditions: Tensor) -> Tensor:
        given = dict(zip(self.names, conditions, strict=True))
        given["mask"] = torch.ones(given["text"].shape[:2], dtype=torch.int64, device=z.device)
        with WholeMask(given["mask"]), symbolic_counts(self.held.denoiser):
            return self.held(z, *(given[name] for name in self.held.names))


class WholeMask(TorchFunctionMode):
    """While it is on, a mask [1, length] of ones is known for what it is.

    Its sum, read as a number, is the length, and what it picks of a tensor is the whole tensor. The tracer, to which a
    tensor may hold anything, would take both for new numbers that may differ from the length.
    """

    def __init__(self, mask: Tensor):
        super().__init__()
        self.length, self.whole, self.sums = mask.shape[1], [mask], list[Tensor]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__getitem__ and is_among(args[1], self.whole):
            return args[0]
        if func is Tensor.tolist and is_among(args[0], self.sums):
            return [self.length]
        found = func(*args, **kwargs or {})
        if args and is_among(args[0], self.whole):
            if func is Tensor.sum:
                self.sums.append(found)
            elif func in (Tensor.__iter__, Tensor.unbind):
                rows = tuple(found)
                self.whole += rows
                return iter(rows) if func is Tensor.__iter__ else rows
            elif func in (Tensor.bool, Tensor.to):
                self.whole.append(found)
        return found


def is_among(value: Any, tensors: Sequence[Tensor]) -> bool:
    """Whether it is one of them, not: equal to one."""
    return any(value is tensor for tensor in tensors)


@contextlib.contextmanager
def symbolic_counts(denoiser: nn.Module) -> Iterator[None]:
    """The network's own code counts with symbols where Python's `len` and `set` know numbers only."""
    with contextlib.ExitStack() as stack:
        for module in {type(part).__module__ for part in denoiser.modules()}:
            if module.startswith("diffusers."):
                for name, counting in (("len", count), ("set", distinct)):
                    stack.enter_context(patch.object(sys.modules[module], name, counting, create=True))
        yield


def count(value: Any) -> Any:
    """len(value); of a tensor its first dimension as it is."""
    return value.shape[0] if isinstance(value, Tensor) else builtins.len(value)


def distinct(values: Any = ()) -> Any:
    """set(values); of symbols, which have no hash, a list without repetitions."""
    values = builtins.list(values)
    if not any(isinstance(value, SymInt) for value in values):
        return builtins.set(values)
    return [value for i, value in enumerate(values) if not any(value == other for other in values[:i])]
