"""Several ranks: process group, wrapping of networks, agreement between ranks; all of it a no-op in one process."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from unistep.errors import UserError, brief

Strategy = Literal["none", "ddp", "fsdp"]
Result = TypeVar("Result")
PROCESS_GROUP_TIMEOUT = timedelta(days=7)
"""How long ranks wait for each other: the first one embeds prompts and judges alone, which may take a day. torchrun
ends them all if one dies."""

# ------------------------------------------------------------------------------------------------------------- ranks


def rank() -> int:
    """This process's rank, 0 in a single process."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of ranks, 1 in a single process."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_rank_zero() -> bool:
    """Whether this rank writes files and talks."""
    return rank() == 0


def resolve_device(name: str = "auto") -> torch.device:
    """`auto` is CUDA where there is one; under torchrun every rank gets the GPU of its LOCAL_RANK."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device: found cuda, but torch sees no CUDA device here; use device auto or cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Joins the group that torchrun's environment describes (gloo on CPU, nccl for CUDA); nothing without torchrun."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl", timeout=PROCESS_GROUP_TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


# ---------------------------------------------------------------------------------------------------------- networks


def wrap(network: nn.Module, strategy: Strategy, device: torch.device) -> nn.Module:
    """The network made ready for several ranks: replicated (DDP) or sharded in place (FSDP2).

    Every rank starts from rank 0's weights. Under FSDP each entry of a ModuleList or ModuleDict becomes a group of
    its own and everything else one more; parameters are re-sharded after each forward pass, so that what
    `parameters()` lists is always the shards; channels-last weights are laid out plainly, for FSDP takes no others.

    Raises:
        UserError: if there are several ranks and the strategy is `none`, or `fsdp` with parameters that are scalars.
    """
    if world_size() == 1:
        return network
    if strategy == "none":
        raise UserError(f"training.strategy: found none with {world_size()} ranks, expected ddp or fsdp")
    if strategy == "ddp":
        ids = [device] if device.type == "cuda" else None
        # Buffers are constants here, and writing them before every forward would break two forwards per backward.
        return DistributedDataParallel(network, device_ids=ids, forward_sync_buffers=False)
    scalar = next((name for name, p in network.named_parameters() if p.ndim == 0), None)
    if scalar is not None:
        raise UserError(f"training.strategy: found fsdp, expected ddp: {scalar} is a scalar, which cannot be sharded")
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # all that sharding supports
    for tensor in [*network.parameters(), *network.buffers()]:
        dist.broadcast(tensor.detach(), src=0)
    mesh = init_device_mesh(device.type, (world_size(),))
    for parent in network.modules():
        for child in parent.children() if isinstance(parent, nn.ModuleList | nn.ModuleDict) else ():
            if any(True for _ in child.parameters()):
                fully_shard(child, mesh=mesh, reshard_after_forward=True)
    fully_shard(network, mesh=mesh, reshard_after_forward=True)
    return network


def unwrap(network: nn.Module) -> nn.Module:
    """The network inside DDP's wrapper; others unchanged. Parameter names are those of the network."""
    return cast(nn.Module, network.module) if isinstance(network, DistributedDataParallel) else network


def set_gradient_sync(network: nn.Module, on: bool) -> None:
    """Whether the next forward and backward pass average gradients over the ranks.

    Off for all but the last micro-batch, and for networks that only pass gradients through: DDP would wait for
    gradients of theirs that never come.
    """
    if isinstance(network, DistributedDataParallel):
        network.require_backward_grad_sync = on
    elif isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(on)


def full_tensor(tensor: Tensor) -> Tensor:
    """A sharded tensor gathered (every rank must call), others unchanged."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


# --------------------------------------------------------------------------------------------------------- agreement


def barrier() -> None:
    """Waits for all ranks."""
    if dist.is_initialized():
        dist.barrier()


def mean_over_ranks(values: dict[str, float]) -> dict[str, float]:
    """Each value averaged over the ranks; all ranks pass the same keys."""
    if world_size() == 1 or not values:
        return values
    packed = torch.tensor(list(values.values()), dtype=torch.float64)
    dist.all_reduce(packed)
    return dict(zip(values, (packed / world_size()).tolist(), strict=True))


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum of all ranks' tensors, on every rank, without waiting for the device."""
    if world_size() == 1:
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    return total


def any_rank(*flags: bool) -> tuple[bool, ...]:
    """Each flag, true everywhere if it is true on some rank."""
    if world_size() == 1:
        return flags
    packed = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(packed, op=dist.ReduceOp.MAX)
    return tuple(bool(flag) for flag in packed.tolist())


def reduce_max_(tensor: Tensor) -> Tensor:
    """The largest value over the ranks, in place, on the tensor's device and without waiting for it."""
    if world_size() > 1:
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tensor


def gather_objects(value: Result) -> list[Result]:
    """Every rank's value, by rank, on every rank."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def require_agreement(facts: Mapping[str, Any]) -> None:
    """Compares plain values on all ranks; each of them must call it, and all get the same error.

    Raises:
        UserError: naming the first value that differs, in alphabetical order, and the ranks.
    """
    if world_size() == 1:
        return
    first, *others = gather_objects(dict(facts))
    for number, other in enumerate(others, start=1):
        for key in sorted(first.keys() | other.keys()):
            if first.get(key) != other.get(key):
                found, expected = brief(other.get(key)), brief(first.get(key))
                raise UserError(
                    f"{key}: found {found} on rank {number}, expected {expected} as on rank 0; start all ranks with "
                    "the same recipe, teacher and version of unistep"
                )


def on_rank_zero(action: Callable[[], Result]) -> Result:
    """Runs an action on rank 0 only; its result, or its UserError, reaches every rank."""
    if world_size() == 1:
        return action()
    outcome: list[Any] = [None, None]
    if is_rank_zero():
        try:
            outcome[0] = action()
        except Exception as error:
            outcome[1] = error if isinstance(error, UserError) else RuntimeError(f"rank 0: {error!r}")
    dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]
