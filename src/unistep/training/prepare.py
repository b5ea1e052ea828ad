"""A network made ready for training: device, memory format, compilation, ranks."""

import torch
from torch import nn

from unistep.training.config import TrainingConfig
from unistep.training.distributed import wrap


def prepare_network(network: nn.Module, config: TrainingConfig, device: torch.device) -> nn.Module:
    """The network as a method should receive it; `unwrap` gives the plain one back.

    Args:
        network: on any device, the same weights on every rank or rank 0's to be taken.
        config: device, channels_last, compile, strategy.
        device: from `resolve_device`.
    """
    network = network.to(device)
    if config.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.compile:
        network.compile()
    return wrap(network, config.strategy, device)
