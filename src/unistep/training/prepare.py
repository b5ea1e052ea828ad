"""A network made ready for training: device, memory format, compilation, ranks."""

import torch
from torch import nn

from unistep.errors import UserError
from unistep.training.config import TrainingConfig
from unistep.training.distributed import wrap


def prepare_network(network: nn.Module, config: TrainingConfig, device: torch.device) -> nn.Module:
    """The network as a method should receive it; `unwrap` gives the plain one back.

    Args:
        network: on any device, the same weights on every rank or rank 0's to be taken.
        config: device, channels_last (false: channels first, whatever the network had), compile, strategy.
        device: from `resolve_device`.

    Raises:
        UserError: for channels_last and a network with 3-D convolutions, which have no such layout.
    """
    if config.channels_last and any(p.ndim == 5 for p in network.parameters()):
        raise UserError("training.channels_last: found true, expected false: this network has 3-D convolutions")
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    network = network.to(device).to(memory_format=layout)  # type: ignore[call-overload]
    if config.compile:
        network.compile()
    return wrap(network, config.strategy, device)
