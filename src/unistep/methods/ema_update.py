"""The update of a network that follows another one."""

import torch
from torch import nn


@torch.no_grad()
def ema_update_(target: nn.Module, source: nn.Module, decay: float = 0.0) -> None:
    """target <- decay target + (1 - decay) source, parameter by parameter; decay 0 copies."""
    pairs = list(zip(target.parameters(), source.parameters(), strict=True))
    torch._foreach_lerp_([p for p, _ in pairs], [q.to(p.dtype) for p, q in pairs], 1 - decay)  # pyright: ignore
