"""What config.json of a checkpoint folder says, checked value by value: a denoiser comes of it or one line."""

import inspect
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from unistep.errors import UserError
from unistep.io.arguments import require_arguments, require_type
from unistep.networks.build import NETWORKS, build_denoiser
from unistep.networks.generator import ONE_STEP, StepSchedule
from unistep.networks.preconditioning import EDMDenoiser
from unistep.teachers.codecs import CODECS, codec_from_config
from unistep.teachers.conditioners import CONDITIONERS, LabelConditioner, conditioner_from_config
from unistep.teachers.diffusers import rebuild
from unistep.teachers.diffusers.denoiser import DiffusersDenoiser

NEEDED = ("network", "process", "shape", "codec")
TYPES: dict[str, Any] = {
    "network": dict,
    "process": dict,
    "codec": dict,
    "conditioner": dict | None,
    "preconditioning": dict | None,
    "shape": tuple[PositiveInt, ...],
    "sigma_data": Annotated[float, Field(gt=0, allow_inf_nan=False)],
    "t_init": Annotated[float | None, Field(allow_inf_nan=False)],
    "steps": dict,
    "lora": dict,
}


def denoiser_from_config(config: dict[str, Any], file: Path) -> EDMDenoiser | DiffusersDenoiser:
    """The denoiser that a configuration describes, randomly initialised.

    Args:
        config: of a teacher, or of a generator with a network.
        file: where it was read, for the message.

    Raises:
        UserError: naming file and key, for what is missing, no value of its kind or at odds with the network.
    """
    with naming(file):
        for key in NEEDED:
            if key not in config:
                raise UserError(f"{key}: missing, a value is needed; restore the file")
        require_types(config)
        denoiser = random_denoiser(config)
        if isinstance(denoiser, EDMDenoiser):
            require_fitting(config)
    return denoiser


def random_denoiser(config: dict[str, Any]) -> EDMDenoiser | DiffusersDenoiser:
    """A denoiser of unistep's own or of diffusers' networks from its configuration, randomly initialised.

    Raises:
        UserError: for values that make no denoiser.
    """
    if config["network"].get("type") == "diffusers":
        return rebuild.denoiser_from_config(config)
    return build_denoiser(config)


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Puts the file's name before what is said of its values."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{file}: {error}") from error


def steps_from_config(config: dict[str, Any] | None) -> StepSchedule:
    """A generator's steps from `Generator.config()["steps"]`; None is one step.

    Raises:
        UserError: for values that are no decreasing finite times, or another way between them.
    """
    if config is None:
        return ONE_STEP
    require_arguments(schedule_from_file, config, "steps")
    later = tuple(config.get("later", ()))
    if not all(map(math.isfinite, later)) or list(later) != sorted(set(later), reverse=True):
        raise UserError(f"steps.later: found {list(later)}, expected decreasing finite times")
    return schedule_from_file(later, config.get("between", "noise"))


def schedule_from_file(later: tuple[float, ...] = (), between: Literal["noise", "ode"] = "noise") -> StepSchedule:
    """The schedule by the names that files have for its parts."""
    return StepSchedule(later, between)


def require_types(config: dict[str, Any]) -> None:
    """Each value that is there must be of its kind."""
    for key, wanted in TYPES.items():
        if key in config:
            require_type(config[key], wanted, key)


def require_fitting(config: dict[str, Any]) -> None:
    """Shape, codec and conditioner must be those of the network."""
    values = dict(config["network"])
    bound = inspect.signature(NETWORKS[values.pop("type")]).bind(**values)
    bound.apply_defaults()
    network, shape = bound.arguments, list(config["shape"])
    images = "img_resolution" in network
    expected = [network["img_channels"], *[network["img_resolution"]] * 2] if images else [network["dim"]]
    if shape != expected:
        raise UserError(f"shape: found {shape}, expected {expected}, as the network has it")
    if not is_own_class(config, "codec", CODECS):
        codec, wanted = codec_from_config(config["codec"]).config()["type"], "pixels" if images else "points"
        if codec != wanted:
            raise UserError(f"codec.type: found {codec!r}, expected {wanted!r} for shape {shape}")
    if is_own_class(config, "conditioner", CONDITIONERS):
        return
    conditioner = conditioner_from_config(config.get("conditioner"))
    if isinstance(conditioner, LabelConditioner) and conditioner.num_classes != network["label_dim"]:
        raise UserError(
            f"conditioner.num_classes: found {conditioner.num_classes}, expected {network['label_dim']}, "
            "the network's label_dim"
        )


def is_own_class(config: Mapping[str, Any], key: str, known: Collection[str]) -> bool:
    """Whether a generator's codec or conditioner is a class of the user's own, which only the teacher has."""
    kind = (config.get(key) or {}).get("type")
    return "t_init" in config and isinstance(kind, str) and kind not in known
