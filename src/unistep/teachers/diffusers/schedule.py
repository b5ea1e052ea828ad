"""What a diffusers scheduler says: the noise process, what the network predicts, and with which sign."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from unistep.diffusion.prediction import Prediction
from unistep.diffusion.process import DiscreteVPProcess, EDMProcess, FlowProcess, NoiseProcess
from unistep.errors import UserError

EDM = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
FLOW = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
SOLVERS = (  # of a table of alpha-bar, or with `use_flow_sigmas` of rectified flow
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
    "SASolverScheduler",
)
TABLES = (
    *SOLVERS,
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "PNDMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "LCMScheduler",
    "TCDScheduler",
)
NAMED: Mapping[str, Callable[..., DiscreteVPProcess]] = {
    "linear": DiscreteVPProcess.linear,
    "scaled_linear": DiscreteVPProcess.scaled_linear,
}
PREDICTIONS: Mapping[str, Prediction] = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
DYNAMIC = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
CLOSE = 1e-4  # between our float64 table of alpha-bar and the scheduler's float32 one


@dataclass(frozen=True)
class Schedule:
    """How a network's output is to be read.

    Attributes:
        process: the noise process of its training.
        prediction: what it predicts.
        sign: 1, or -1 where it predicts the negative of that.
        sigma_data: standard deviation of the data, which "F" is read with.
    """

    process: NoiseProcess
    prediction: Prediction
    sign: float = 1.0
    sigma_data: float = 0.5


def read_schedule(scheduler: Any, tokens: int = 0) -> Schedule:
    """The noise process and the prediction type of a scheduler, from its own configuration.

    How a solver walks (spacing of its steps, clipping, Karras levels) is not the model's and is left out.

    Args:
        scheduler: a diffusers scheduler.
        tokens: patches in one sample, on which a dynamic shift depends (FLUX).

    Raises:
        UserError: naming the scheduler's class or setting, where it is not known.
    """
    name, config = type(scheduler).__name__, scheduler.config
    if name in EDM:
        return edm_schedule(config)
    if name in FLOW or (name in SOLVERS and config.get("use_flow_sigmas")):
        return flow_schedule(name, config, tokens)
    if name in TABLES:
        require_setting(config, "timestep_type", ("discrete",))
        kind = require_setting(config, "prediction_type", tuple(PREDICTIONS))
        return Schedule(vp_process(scheduler), PREDICTIONS[kind])
    raise UserError(
        f"scheduler: found {name}, expected one of {', '.join((*EDM, *FLOW, *TABLES))}; give the network to "
        "teacher_from_module with its process and prediction"
    )


def require_setting(config: Mapping[str, Any], name: str, known: tuple[Any, ...]) -> Any:
    """A setting of the scheduler, the first known value where it has none.

    Raises:
        UserError: for another value.
    """
    value = config.get(name, known[0])
    if value not in known:
        raise UserError(f"scheduler.{name}: found {value!r}, expected {' or '.join(map(repr, known))}")
    return value


def edm_schedule(config: Mapping[str, Any]) -> Schedule:
    """EDM's preconditioning; "v_prediction" there means F with the other sign."""
    kind = require_setting(config, "prediction_type", ("epsilon", "v_prediction"))
    process = EDMProcess(
        float(config["sigma_min"]), float(config["sigma_max"]), float(config["rho"]), config["num_train_timesteps"]
    )
    return Schedule(process, "F", -1.0 if kind == "v_prediction" else 1.0, float(config["sigma_data"]))


def flow_schedule(name: str, config: Mapping[str, Any], tokens: int) -> Schedule:
    """Rectified flow with a static shift, or the one that belongs to this many tokens."""
    require_setting(config, "invert_sigmas", (False,))
    if name in SOLVERS:
        require_setting(config, "prediction_type", ("flow_prediction",))
    shift = dynamic_shift(config, tokens) if config.get("use_dynamic_shifting") else static_shift(config)
    return Schedule(FlowProcess(shift, config["num_train_timesteps"]), "velocity")


def static_shift(config: Mapping[str, Any]) -> float:
    """The shift under its two names, 1 where there is none."""
    return float(config.get("shift") or config.get("flow_shift") or 1.0)


def dynamic_shift(config: Mapping[str, Any], tokens: int) -> float:
    """mu grows linearly with the number of tokens; the shift is exp(mu), or mu itself (`time_shift_type`).

    Raises:
        UserError: for a scheduler that leaves the numbers to the pipeline's code.
    """
    missing = [name for name in DYNAMIC if name not in config]
    if missing:
        raise UserError(
            f"scheduler.use_dynamic_shifting: found true without {', '.join(missing)}, expected them: by which numbers "
            "does the shift grow? set use_dynamic_shifting to false and flow_shift to the shift in "
            "scheduler_config.json, or take a FlowMatchEulerDiscreteScheduler"
        )
    few, many = config["base_image_seq_len"], config["max_image_seq_len"]
    slope = (config["max_shift"] - config["base_shift"]) / (many - few)
    mu = config["base_shift"] + slope * (tokens - few)
    kind = require_setting(config, "time_shift_type", ("exponential", "linear"))
    return math.exp(mu) if kind == "exponential" else mu


def vp_process(scheduler: Any) -> DiscreteVPProcess:
    """The table of alpha-bar under its published name where it has one, otherwise by its values.

    Raises:
        UserError: if the scheduler's own table is another one than its configuration names.
    """
    config, own = scheduler.config, torch.as_tensor(scheduler.alphas_cumprod).double().cpu()
    process = named_table(config)
    if process is None:
        return DiscreteVPProcess(own)
    if config.get("rescale_betas_zero_snr"):
        process = DiscreteVPProcess.zero_terminal_snr(process)
    apart = float((process.alphas_cumprod - own).abs().max())
    if not apart <= CLOSE:  # also not a number
        raise UserError(
            f"scheduler: found a table of alpha-bar that differs by {apart:.2g} from that of its beta_schedule "
            f"{config['beta_schedule']!r}, expected the same; correct scheduler_config.json"
        )
    return process


def named_table(config: Mapping[str, Any]) -> DiscreteVPProcess | None:
    """linear, scaled_linear or cosine as the configuration says it; None for any other table."""
    if config.get("trained_betas") is not None:
        return None
    if config["beta_schedule"] == "squaredcos_cap_v2":
        return DiscreteVPProcess.cosine(config["num_train_timesteps"])
    make = NAMED.get(config["beta_schedule"])
    if make is None:
        return None
    return make(config["num_train_timesteps"], float(config["beta_start"]), float(config["beta_end"]))
