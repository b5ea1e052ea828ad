"""The exponential moving average of the exported network's parameters, in float32."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from unistep.training.config import EMAConfig
from unistep.training.distributed import full_tensor, unwrap


class EMA:
    """Shadow copy of a network's parameters: shadow <- decay shadow + (1 - decay) parameter after every step.

    decay = 0.5^(1 / h) with the half-life h of the settings, at most `ramp_up` times the number of the step; at step
    0 a ramp-up gives decay 0, so the start weights leave no trace. Sharded parameters have sharded shadows.
    """

    def __init__(self, network: nn.Module, config: EMAConfig):
        self.network, self.config = unwrap(network), config
        self.shadow: dict[str, Tensor] = {
            name: p.detach().to(torch.float32, copy=True) for name, p in self.network.named_parameters()
        }

    def decay(self, step: int) -> float:
        """The decay applied after step `step` (counted from 0)."""
        if self.config.ramp_up is not None:
            half_life = min(self.half_life(), self.config.ramp_up * step)
            return 0.5 ** (1 / half_life) if half_life > 0 else 0.0
        return self.config.decay if self.config.decay is not None else 0.5 ** (1 / self.half_life())

    def half_life(self) -> float:
        """Steps after which a parameter's weight in the average has halved, without ramp-up."""
        if self.config.half_life is not None:
            return self.config.half_life
        return math.log(0.5) / math.log(self.config.decay) if self.config.decay else 0.0

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the shadow towards the parameters as they are after step `step`."""
        parameters = {name: p.detach().float() for name, p in self.network.named_parameters()}
        shadows = [self.shadow[name] for name in parameters]
        torch._foreach_lerp_(shadows, [*parameters.values()], 1 - self.decay(step))  # pyright: ignore

    @contextmanager
    def applied(self) -> Iterator[nn.Module]:
        """The network with the averaged parameters inside the `with` block; afterwards bit for bit as before."""
        kept = {name: p.detach().clone() for name, p in self.network.named_parameters()}
        self.copy_in(self.shadow)
        try:
            yield self.network
        finally:
            self.copy_in(kept)

    @torch.no_grad()
    def copy_in(self, values: dict[str, Tensor]) -> None:
        """Writes values into the network's parameters."""
        for name, p in self.network.named_parameters():
            p.copy_(values[name])

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged parameters in full, and the network's buffers, for export; every rank must call it."""
        buffers = {name: b.detach().clone() for name, b in self.network.named_buffers() if name in self.persistent()}
        return {name: full_tensor(v).clone() for name, v in self.shadow.items()} | buffers

    def persistent(self) -> set[str]:
        """Names in the network's state dict."""
        return set(self.network.state_dict())
