"""Networks of diffusers from plain configuration: the name of a class is looked up among diffusers' own models."""

import inspect
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, cast

import torch
from pydantic import Field, PositiveInt
from torch import nn

from unistep.diffusion.prediction import Prediction, require_prediction
from unistep.diffusion.process import process_from_config
from unistep.errors import UserError, one_line
from unistep.io.arguments import require_bounded, require_type
from unistep.io.optional import import_optional
from unistep.teachers.diffusers.denoiser import DiffusersDenoiser
from unistep.teachers.diffusers.schedule import Schedule

OLDEST = (0, 38)  # of diffusers: older ones import code that lies in a pipeline's folder
READING: dict[str, Any] = {
    "prediction": Prediction,
    "sign": Annotated[float, Field(allow_inf_nan=False)],
    "sigma_data": Annotated[float, Field(gt=0, allow_inf_nan=False)],
    "constants": dict[str, float | list[float]],
    "null_label": int | None,
}
OPTIONAL: dict[str, Any] = {"patch": PositiveInt}  # in folders of networks that see patches


def import_diffusers() -> Any:
    """The library, imported when it is needed: it takes seconds.

    Raises:
        UserError: if it is not installed, or too old to be safe.
    """
    try:
        found = version("diffusers")
    except PackageNotFoundError:
        found = ""
    numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdecimal())
    if found and not numbers >= OLDEST:
        raise UserError(
            f"diffusers: found version {found}, expected {'.'.join(map(str, OLDEST))} or newer: older ones execute "
            "code that lies in a pipeline's folder; pip install -U 'unistep[diffusers]'"
        )
    return import_optional("diffusers", "diffusers")


def model_class(name: object) -> type[nn.Module]:
    """One of diffusers' own model classes by its name.

    Raises:
        UserError: for any other name.
    """
    diffusers = import_diffusers()
    kind: Any = getattr(diffusers, name, None) if isinstance(name, str) and name.isidentifier() else None
    if not (inspect.isclass(kind) and issubclass(kind, diffusers.ModelMixin)):
        raise UserError(f"network.class: found {name!r}, expected the name of a model class of diffusers")
    return cast(type[nn.Module], kind)


def build_network(values: Mapping[str, Any]) -> nn.Module:
    """A randomly initialised network from `class` and `config`; torch's random state is left as it was.

    Raises:
        UserError: for a class that is none of diffusers' models, or arguments that it does not take.
    """
    kind, config = model_class(values.get("class")), values.get("config")
    require_type(config, dict, "network.config")
    known = inspect.signature(kind.__init__).parameters
    unknown = sorted(set(config or {}) - set(known))
    if unknown:
        raise UserError(f"network.config.{unknown[0]}: unknown key, expected the arguments of {kind.__name__}")
    require_bounded(config or {}, "network.config")
    try:
        with torch.random.fork_rng(devices=[]):
            return kind(**(config or {}))
    except Exception as error:  # whatever values that make no network raise
        raise UserError(f"network.config: found values that make no {kind.__name__}: {one_line(error)}") from error


def denoiser_from_config(config: Mapping[str, Any], network: nn.Module | None = None) -> DiffusersDenoiser:
    """The way back from `DiffusersDenoiser.config()`, around a network of that class or a randomly initialised one.

    Raises:
        UserError: for anything that makes no denoiser.
    """
    reading = config.get("reading")
    require_type(reading, dict, "reading")
    assert isinstance(reading, dict)
    for key, wanted in (READING | OPTIONAL).items():
        if key in reading:
            require_type(reading[key], wanted, f"reading.{key}")
        elif key in READING:
            raise UserError(f"reading.{key}: missing, a value is needed; restore the file")
    require_prediction(reading["prediction"])
    process = process_from_config(config["process"])
    schedule = Schedule(process, reading["prediction"], reading["sign"], reading["sigma_data"])
    network = build_network(config["network"]) if network is None else network
    return DiffusersDenoiser(network, schedule, reading["constants"], reading["null_label"], reading.get("patch", 1))
