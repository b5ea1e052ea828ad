"""Denoisers from plain configuration, so that a checkpoint folder needs no code of its own."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from unistep.diffusion.process import EDMProcess, process_from_config
from unistep.errors import UserError, one_line
from unistep.io.arguments import require_arguments, require_bounded, require_choice
from unistep.networks.dhariwal_unet import DhariwalUNet
from unistep.networks.edm2_unet import EDM2UNet
from unistep.networks.edm_preconditioning import EDM2Denoiser, IDDPMDenoiser, VEDenoiser, VPDenoiser
from unistep.networks.mlp import MLP
from unistep.networks.preconditioning import EDMDenoiser, channels_last
from unistep.networks.song_unet import SongUNet
from unistep.networks.unet import UNet

NETWORKS: Mapping[str, type[nn.Module]] = {
    "unet": UNet,
    "mlp": MLP,
    "song_unet": SongUNet,
    "dhariwal_unet": DhariwalUNet,
    "edm2_unet": EDM2UNet,
}
MOST_PARAMETERS = 2**50  # of a network that is described on the meta device, to be counted or compared
BYTES = 4  # of a parameter in float32, which networks are made in
PRECONDITIONINGS: Mapping[str, Callable[..., EDMDenoiser]] = {
    "edm": EDMDenoiser,
    "vp": VPDenoiser,
    "ve": VEDenoiser,
    "iddpm": IDDPMDenoiser,
}


def build_network(config: Mapping[str, Any]) -> nn.Module:
    """A raw network from {"type": a name in NETWORKS, ...constructor arguments}.

    Raises:
        UserError: for an unknown type or constructor argument, a value that the network refuses, or sizes beyond
            reason; all before memory is taken.
    """
    make, arguments = chosen(NETWORKS, config, "network")
    require_arguments(make, arguments, "network")
    for name, least in (("img_resolution", 1), ("img_channels", 1), ("label_dim", 0)):
        if arguments.get(name, least) < least:
            raise UserError(f"network.{name}: found {arguments[name]}, expected {least} or more")
    require_bounded(arguments, "network")
    try:
        with torch.device("meta"):
            parameters = sum(p.numel() for p in make(**arguments).parameters())
        require_parameters(
            parameters, MOST_PARAMETERS if torch.get_default_device().type == "meta" else held_by_machine(), "network"
        )
        return make(**arguments)
    except (ArithmeticError, RuntimeError) as error:
        raise UserError(f"network: found sizes that make no network: {one_line(error)}") from error
    except UserError:
        raise
    except ValueError as error:  # sizes that make no network; it says which
        raise UserError(f"network.{error}") from error


def require_memory(network: nn.Module, section: str = "network") -> None:
    """Refuses a network on the meta device whose weights do not fit into the memory of this machine.

    Raises:
        UserError: naming the section.
    """
    require_parameters(sum(p.numel() for p in network.parameters()), held_by_machine(), section)


def require_parameters(found: int, most: int, section: str) -> None:
    """Refuses more parameters than `most`."""
    if not found <= most:
        raise UserError(f"{section}: found sizes that make {found:,} parameters, expected at most {most:,}")


def held_by_machine() -> int:
    """Returns how many parameters fit into the memory of this machine, were nothing else in it."""
    return min(MOST_PARAMETERS, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // BYTES)


def build_denoiser(config: Mapping[str, Any]) -> EDMDenoiser:
    """A denoiser from plain values, randomly initialised, channels-last.

    Args:
        config: `network`; `process`; `sigma_data` (0.5), which EDM's preconditioning needs; `preconditioning`, a
            mapping of `type` (edm, vp, ve or iddpm) and that class's own options, EDM's where it is left out.

    Raises:
        UserError: for an unknown type or option, or values that do not fit together.
    """
    model, process = build_network(config["network"]), process_from_config(config["process"])
    make, options = chosen(PRECONDITIONINGS, config.get("preconditioning") or {"type": "edm"}, "preconditioning")
    label_dim = config["network"].get("label_dim", 0)
    if make is EDMDenoiser:
        make = EDM2Denoiser if isinstance(model, EDM2UNet) else EDMDenoiser
        make = partial(make, model, process, config.get("sigma_data", 0.5), label_dim)
    else:
        if "sigma_data" in config:
            raise UserError(
                f"sigma_data: found {config['sigma_data']}, expected none: only edm preconditioning has one"
            )
        make = partial(make, model, process, label_dim)
    denoiser = preconditioned(make, options)
    denoiser.check_process()
    channels_last(denoiser)
    return denoiser


def known_levels(preconditioning: Mapping[str, Any]) -> tuple[float, float]:
    """Lowest and highest noise level that a preconditioning is defined for; 0 and infinity for EDM's.

    Raises:
        UserError: for an unknown type or option, or values that make no levels.
    """
    make, options = chosen(PRECONDITIONINGS, preconditioning, "preconditioning")
    denoiser = preconditioned(partial(make, nn.Identity(), EDMProcess()), options)
    return denoiser.sigma_min, denoiser.sigma_max


def preconditioned(make: Callable[..., EDMDenoiser], options: Mapping[str, Any]) -> EDMDenoiser:
    """A denoiser from the options of its preconditioning, the process not yet checked.

    Raises:
        UserError: for an unknown option, or values that make no levels.
    """
    require_arguments(make, options, "preconditioning")
    try:
        return make(**options)
    except (ArithmeticError, ValueError) as error:
        raise UserError(f"preconditioning: found {dict(options)}, which make no noise levels: {error}") from error


def chosen(
    types: Mapping[str, Callable[..., Any]], config: Mapping[str, Any], section: str
) -> tuple[Any, dict[str, Any]]:
    """The class that `type` names, and the other values.

    Raises:
        UserError: for an unknown type.
    """
    arguments = dict(config)
    kind = require_choice(arguments.pop("type", None), types, f"{section}.type")
    return types[kind], arguments
