"""`process_from_config`: plain values to a noise process, the way back from `process.config()`."""

from collections.abc import Callable, Mapping
from typing import Any

from unistep.errors import UserError
from unistep.process.base import NoiseProcess
from unistep.process.edm import EDMProcess

TYPES: Mapping[str, Callable[..., NoiseProcess]] = {
    "edm": EDMProcess,
}


def process_from_config(config: Mapping[str, Any]) -> NoiseProcess:
    """Rebuilds a process.

    Args:
        config: `type` (edm, discrete_vp, continuous_vp or flow) and the arguments of its class; what is left out
            takes the class's default.

    Raises:
        UserError: for an unknown type, an unknown argument, or a value that the class refuses.
    """
    arguments = dict(config)
    kind = arguments.pop("type", None)
    if kind not in TYPES:
        raise UserError(f"process.type: found {kind!r}, expected one of {', '.join(TYPES)}")
    try:
        return TYPES[kind](**arguments)
    except TypeError as error:  # Python's own words name the argument that does not fit
        raise UserError(f"process ({kind}): found {sorted(arguments)}, which does not fit: {error}") from error
