"""Which scheduler of diffusers walks exactly as a generator does: first time and scale, steps, the end at x_0."""

from typing import Any

import torch

from unistep.diffusion.process import DiscreteVPProcess, FlowProcess
from unistep.errors import UserError
from unistep.export.student import Student
from unistep.teachers.diffusers.denoiser import DiffusersDenoiser
from unistep.teachers.diffusers.rebuild import import_diffusers
from unistep.teachers.diffusers.schedule import PREDICTIONS

OTHER_FORMS = "export to safetensors instead"


def scheduler_of(student: Student) -> Any:
    """A scheduler whose walk of the generator's number of steps is the generator's.

    A table of alpha-bar from its last entry: DDIM with trailing spacing, whose last step is x_0 itself. From an earlier
    entry: the table cut there, and Euler's method, which scales the noise to sigma(t) (arXiv:2206.00364, Table 1, VP).
    Rectified flow from t = 1: Euler's method, z - velocity; of several steps the call gives the levels as `sigmas`.

    Raises:
        UserError: where no scheduler does, saying why.
    """
    denoiser = student.generator.denoiser
    assert isinstance(denoiser, DiffusersDenoiser)
    process = denoiser.process
    if isinstance(process, DiscreteVPProcess):
        return vp_scheduler(student, process, denoiser)
    if isinstance(process, FlowProcess):
        return flow_scheduler(student, process)
    raise UserError(
        f"process.type: found {process.config()['type']!r}: diffusers' EDM schedulers start at sqrt(sigma_max^2 + 1) "
        f"and the generator at sigma_max, so none expresses it; {OTHER_FORMS}"
    )


def vp_scheduler(student: Student, process: DiscreteVPProcess, denoiser: DiffusersDenoiser) -> Any:
    """DDIM, LCM or Euler on the process's table."""
    diffusers, steps = import_diffusers(), student.generator.steps
    names = {ours: theirs for theirs, ours in PREDICTIONS.items()}
    common = {
        "prediction_type": names[denoiser.schedule.prediction],
        "timestep_spacing": "trailing",
        "steps_offset": 1,  # is not used by this spacing; Stable Diffusion's pipelines warn of another value
    }
    if student.generator.t_init is not None:
        table = cut_table(student, process)
        return diffusers.EulerDiscreteScheduler(len(table), trained_betas=betas(table), **common)
    require_trailing(student, process)
    table = {**common, "trained_betas": betas(process.alphas_cumprod), "clip_sample": False, "set_alpha_to_one": True}
    count = process.num_bins
    if steps.later_times and steps.transition == "noise":
        return diffusers.LCMScheduler(count, original_inference_steps=count, **table)
    return diffusers.DDIMScheduler(count, **table)


def cut_table(student: Student, process: DiscreteVPProcess) -> torch.Tensor:
    """alpha-bar up to the generator's first time, which then is the last that the scheduler knows.

    Raises:
        UserError: between two entries, or for several steps.
    """
    t = student.generator.t_init
    assert t is not None
    if t != int(t) or not 1 <= t < process.num_bins:
        raise UserError(
            f"t_init: found {t:g}, expected a whole timestep from 1 to {process.num_bins - 1}: diffusers' schedulers "
            f"know no others; {OTHER_FORMS}"
        )
    if student.generator.steps.later_times:
        raise UserError(f"t_init: found {t:g} with several steps, which no scheduler expresses; {OTHER_FORMS}")
    return process.alphas_cumprod[: int(t) + 1]


def require_trailing(student: Student, process: DiscreteVPProcess) -> None:
    """Several steps must be evenly spaced from the last timestep, as schedulers space them.

    Raises:
        UserError: naming the steps found and expected.
    """
    count, found = student.generator.steps.count, student.times
    even = process.sampling_times(count)[:-1].tolist()
    if found != even or process.num_bins % count:
        raise UserError(
            f"steps: found timesteps {found}, expected {even} with a count that divides {process.num_bins}: "
            f"no scheduler walks otherwise; {OTHER_FORMS}"
        )


def betas(table: torch.Tensor) -> list[float]:
    """1 - alpha-bar_t / alpha-bar_(t-1), what diffusers builds a table from."""
    return (1 - table / torch.cat([table.new_ones(1), table[:-1]])).tolist()


def flow_scheduler(student: Student, process: FlowProcess) -> Any:
    """Euler's method, or with fresh noise between the steps its stochastic form; the call gives it the levels.

    Raises:
        UserError: for another first time.
    """
    steps = student.generator.steps
    if student.times[0] != 1.0:
        raise UserError(
            f"timesteps: found {student.times}, expected the first at t = 1: diffusers starts rectified flow with unit "
            f"noise; {OTHER_FORMS}"
        )
    fresh = bool(steps.later_times) and steps.transition == "noise"
    return import_diffusers().FlowMatchEulerDiscreteScheduler(process.num_bins, shift=1.0, stochastic_sampling=fresh)
