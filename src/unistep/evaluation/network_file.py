"""Networks of unistep's own as safetensors files, with their description in the header."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from unistep.arguments import require_arguments, require_type
from unistep.errors import UserError
from unistep.text_files import parse_json

N = TypeVar("N", bound=nn.Module)


def network_file(network: nn.Module, config: Mapping[str, Any]) -> bytes:
    """A safetensors file: parameters as fp16, buffers as they are, `config` as JSON in the header.

    One entry in the header only, because several would be written in an arbitrary order.
    """
    buffers = {name for name, _ in network.named_buffers()}
    state = {
        k: (v if k in buffers else v.half()).detach().cpu().contiguous(memory_format=torch.contiguous_format)
        for k, v in network.state_dict().items()
    }
    return save(state, {"config": json.dumps(config, sort_keys=True)})


def read_file(path: Path, format: str | None) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, str]]:
    """Description, tensors and header of a safetensors file; `format` is what its description must name."""
    if not path.is_file():
        raise UserError(f"{path}: not found; expected a safetensors file there")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}
    except SafetensorError as error:
        raise UserError(f"{path}: no readable safetensors file ({error}); restore the file") from error
    config = parse_json(metadata.get("config", "{}"), path, "restore the file")
    found = config.get("format") if isinstance(config, dict) else None
    if format and found != format:
        raise UserError(f"{path}: found format {found!r}, expected {format!r}")
    return config, tensors, metadata


def described(
    make: Callable[..., N], config: Mapping[str, Any], state: Mapping[str, Tensor], path: Path
) -> N:  # fmt: skip
    """The network that a file's description names, with the file's weights."""
    require_type(config.get("network"), dict, f"{path}: network")
    require_arguments(make, config["network"], f"{path}: network")
    try:
        network = make(**config["network"])
    except (ArithmeticError, RuntimeError, ValueError) as error:  # sizes that make no network
        raise UserError(f"{path}: network: found {config['network']}, which makes none; restore the file") from error
    return fill(network, state, path)


def fill(network: N, state: Mapping[str, Tensor], path: Path) -> N:
    """Loads weights into a network, which becomes frozen and fp32."""
    try:
        network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    except RuntimeError as error:
        raise UserError(f"{path}: the weights do not fit the network that the file describes; restore it") from error
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
