"""Networks on the meta device: shapes without numbers, so that nothing is allocated for them."""

import copy

from torch import nn


def copy_to_meta(module: nn.Module) -> nn.Module:
    """A copy whose tensors are on the meta device."""
    known: dict[int, object] = {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in module.parameters()}
    known |= {id(b): b.to("meta") for b in module.buffers()}
    return copy.deepcopy(module, known)


def is_on_meta(network: nn.Module) -> bool:
    """True if any parameter or buffer is on the meta device."""
    return any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers()))
