"""Networks that follow others: an average of the last steps, or a copy from time to time."""

import torch
from torch import nn


@torch.no_grad()
def follow(follower: nn.Module, leader: nn.Module, decay: float = 0.0) -> None:
    """follower <- decay follower + (1 - decay) leader, parameter by parameter; 0 copies."""
    for p, q in zip(follower.parameters(), leader.parameters(), strict=True):
        p.lerp_(q.to(p.dtype), 1 - decay)
