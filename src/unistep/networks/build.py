"""Denoisers from plain configuration, so that a checkpoint folder needs no code of its own."""

from typing import Any

from torch import nn

from unistep.arguments import require_arguments
from unistep.errors import UserError
from unistep.networks.mlp import MLP
from unistep.networks.preconditioning import EDMDenoiser, channels_last
from unistep.networks.unet import UNet
from unistep.process import process_from_config

NETWORKS: dict[str, type[nn.Module]] = {"unet": UNet, "mlp": MLP}


def build_network(config: dict[str, Any]) -> nn.Module:
    """A raw network from {"type": "unet" | "mlp", ...constructor arguments}.

    Raises:
        UserError: for an unknown type or constructor argument, or a value that the network refuses.
    """
    arguments = dict(config)
    kind = arguments.pop("type", None)
    if kind not in NETWORKS:
        raise UserError(f"network.type: found {kind!r}, expected one of {', '.join(NETWORKS)}")
    require_arguments(NETWORKS[kind], arguments, "network")
    try:
        return NETWORKS[kind](**arguments)
    except ValueError as error:  # sizes that make no network; it says which
        raise UserError(f"network.{error}") from error


def build_denoiser(config: dict[str, Any]) -> EDMDenoiser:
    """A denoiser from {"network": ..., "process": ..., "sigma_data": float}, randomly initialised, channels-last."""
    model = build_network(config["network"])
    process = process_from_config(config["process"])
    label_dim = config["network"].get("label_dim", 0)
    denoiser = EDMDenoiser(model, process, sigma_data=config.get("sigma_data", 0.5), label_dim=label_dim)
    channels_last(denoiser)
    return denoiser
