"""Networks that follow others: an average of the last steps, or a copy from time to time."""

import torch
from torch import nn


@torch.no_grad()
def follow(follower: nn.Module, leader: nn.Module, decay: float = 0.0) -> None:
    """follower <- decay follower + (1 - decay) leader, parameter by parameter; 0 copies."""
    pairs = list(zip(follower.parameters(), leader.parameters(), strict=True))
    torch._foreach_lerp_([p for p, _ in pairs], [q.to(p.dtype) for p, q in pairs], 1 - decay)  # pyright: ignore
