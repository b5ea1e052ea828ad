"""Names for the tensors that travel through unistep, and the one shape helper everybody needs."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor

Cond = Tensor | Mapping[str, Tensor] | None
"""What a denoiser is conditioned on: class labels (int64 [b], -1 = no class), named tensors (text), or nothing."""


def bcast(coefficient: Tensor, x: Tensor) -> Tensor:
    """View a per-sample coefficient [b] as [b, 1, ..., 1] so that it multiplies x [b, *dims], in x's dtype."""
    return coefficient.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def index_condition(cond: Cond, index: Tensor | slice) -> Cond:
    """The rows `index` of a condition."""
    if cond is None:
        return None
    return {k: v[index] for k, v in cond.items()} if isinstance(cond, Mapping) else cond[index]


def cat_conditions(*conds: Cond) -> Cond:
    """Conditions of the same kind one after the other."""
    first = conds[0]
    if isinstance(first, Mapping):
        return {key: cat_unchanged([c[key] for c in conds if isinstance(c, Mapping)]) for key in first}
    return None if first is None else cat_unchanged([c for c in conds if isinstance(c, Tensor)])


def cat_unchanged(rows: Sequence[Tensor]) -> Tensor:
    """torch.cat outside autocast, which on CPUs cannot join embeddings that are kept in float16."""
    kind = rows[0].device.type
    if not torch.is_autocast_enabled(kind):
        return torch.cat(list(rows))
    with torch.autocast(kind, enabled=False):
        return torch.cat(list(rows))


def to_device(cond: Cond, device: torch.device | str) -> Cond:
    """The condition on another device, see `upload`."""
    if cond is None:
        return None
    return {k: upload(v, device) for k, v in cond.items()} if isinstance(cond, Mapping) else upload(cond, device)


def upload(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on another device; one that comes from the CPU is copied without waiting for the device's queue.

    CUDA copies asynchronously from pinned memory only; torch keeps that memory until the copy is done.
    """
    device = torch.device(device)
    if tensor.device.type != "cpu" or device.type == "cpu":
        return tensor.to(device)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def constant(values: float | Sequence[float], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers as a tensor on a device, uploaded once; not to be written into."""
    plain = tuple(values) if isinstance(values, Sequence) else values
    if torch.compiler.is_compiling():  # a tracer's stand-in must not be kept
        return torch.tensor(plain, device=device, dtype=dtype)
    return _kept_constant(plain, device, dtype)


@lru_cache(maxsize=256)
def _kept_constant(values: float | tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # or no gradient could pass by it later
        return torch.tensor(values, device=device, dtype=dtype)
