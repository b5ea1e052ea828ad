"""`process_from_config`: plain values to a noise process, the way back from `process.config()`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from unistep.diffusion.process.base import NoiseProcess
from unistep.diffusion.process.continuous_vp import ContinuousVPProcess
from unistep.diffusion.process.discrete_vp import DiscreteVPProcess
from unistep.diffusion.process.edm import EDMProcess
from unistep.diffusion.process.flow import FlowProcess
from unistep.errors import UserError
from unistep.io.arguments import require_arguments, require_choice

TABLES: Mapping[str, Callable[..., DiscreteVPProcess]] = {
    "linear": DiscreteVPProcess.linear,
    "scaled_linear": DiscreteVPProcess.scaled_linear,
    "cosine": DiscreteVPProcess.cosine,
}


def discrete_vp(
    table: str | None = None,
    alphas_cumprod: Sequence[float] | None = None,
    zero_terminal_snr: bool = False,
    **arguments: Any,
) -> DiscreteVPProcess:
    """A discrete VP process from a named table (linear if nothing is said) or from its values.

    Raises:
        UserError: for an unknown table, or a table beside values.
    """
    if alphas_cumprod is not None and table is not None:
        raise UserError(f"process.table: found {table!r} beside alphas_cumprod, expected one of the two; remove one")
    name = require_choice("linear" if table is None else table, TABLES, "process.table")
    made = TABLES[name](**arguments) if alphas_cumprod is None else DiscreteVPProcess(alphas_cumprod, **arguments)
    return DiscreteVPProcess.zero_terminal_snr(made) if zero_terminal_snr else made


TYPES: Mapping[str, Callable[..., NoiseProcess]] = {
    "edm": EDMProcess,
    "discrete_vp": discrete_vp,
    "continuous_vp": ContinuousVPProcess,
    "flow": FlowProcess,
}


def process_from_config(config: Mapping[str, Any]) -> NoiseProcess:
    """Rebuilds a process.

    Args:
        config: `type` (edm, discrete_vp, continuous_vp or flow) and the arguments of its class; what is left out
            takes the class's default. discrete_vp takes `table` (linear, scaled_linear, cosine) with that table's
            arguments, or `alphas_cumprod`, and `zero_terminal_snr`.

    Raises:
        UserError: for an unknown type, an unknown argument, or a value that the class refuses.
    """
    arguments = dict(config)
    kind = require_choice(arguments.pop("type", None), TYPES, "process.type")
    require_arguments(TYPES[kind], arguments, "process")
    try:
        with torch.device("cpu"):  # also where a network is built on the meta device
            return TYPES[kind](**arguments)
    except TypeError as error:  # Python's own words name the argument that does not fit
        raise UserError(f"process ({kind}): found {sorted(arguments)}, which does not fit: {error}") from error


NAMES: Mapping[str, Callable[[], NoiseProcess]] = {
    "edm": EDMProcess,
    "ddpm-linear": DiscreteVPProcess.linear,
    "ddpm-cosine": DiscreteVPProcess.cosine,
    "sd": DiscreteVPProcess.scaled_linear,
    "vp-sde": ContinuousVPProcess,
    "flow": FlowProcess,
}
"""Processes with their usual settings, by name."""


def require_process(process: Any) -> NoiseProcess:
    """A process itself, one of `NAMES`, or a mapping as `process_from_config` takes it.

    Raises:
        UserError: for anything else; names the nearest name and all of them.
    """
    if isinstance(process, str):
        return NAMES[require_choice(process, NAMES, "process")]()
    if isinstance(process, Mapping):
        return process_from_config(process)
    if isinstance(process, type) or not isinstance(process, NoiseProcess):
        raise UserError(
            f"process: found {process!r}, expected a noise process such as DiscreteVPProcess.linear(), or one of "
            f"{', '.join(NAMES)}"
        )
    return process
