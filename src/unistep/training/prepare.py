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
        config: device, channels_last (false: channels first, whatever the network had), gradient_checkpointing,
            compile, strategy.
        device: from `resolve_device`.

    Raises:
        UserError: for channels_last and a network with 3-D convolutions, which have no such layout, or gradient
            checkpointing of a network that has none.
    """
    if config.channels_last and any(p.ndim == 5 for p in network.parameters()):
        raise UserError("training.channels_last: found true, expected false: this network has 3-D convolutions")
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    network = network.to(device).to(memory_format=layout)  # type: ignore[call-overload]
    if config.gradient_checkpointing:
        checkpoint_gradients(network)
    if config.compile:
        network.compile()
    return wrap(network, config.strategy, device)


def checkpoint_gradients(network: nn.Module) -> None:
    """Blocks of the network keep their inputs alone, and compute the rest again in the backward pass.

    Raises:
        UserError: for a network that knows no such thing.
    """
    able = [module for module in network.modules() if hasattr(module, "enable_gradient_checkpointing")]
    try:
        for module in able:
            module.enable_gradient_checkpointing()  # type: ignore[operator]
    except ValueError as error:
        raise UserError(f"training.gradient_checkpointing: found true, expected false: {error}") from error
    if not able:
        raise UserError(
            "training.gradient_checkpointing: found true, expected false: only networks of diffusers have it"
        )
