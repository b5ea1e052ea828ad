"""The scheduler of an export walks exactly as the generator does, or is refused."""

import sys
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from unistep.diffusion.process import DiscreteVPProcess
from unistep.errors import UserError
from unistep.export.schedulers import betas, scheduler_of
from unistep.networks.generator import ONE_STEP, StepSchedule

sys.path.insert(0, str(Path(__file__).parent))
from students import pixel_student, walked

EVEN = (749.0, 499.0, 249.0)


def difference(scheduler: Any, t_init: float | None = None, steps: StepSchedule = ONE_STEP) -> float:
    """Of the scheduler's walk from the generator's, relative to the largest value."""
    student = pixel_student(scheduler, t_init, steps)
    z = torch.randn(3, 3, 8, 8)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        ours = student.generator.sample_with_noise(z, None, lambda _: torch.randn(z.shape, generator=rng))
    found = walked(student, scheduler_of(student), z)
    assert float(ours.std()) > 0.01
    return float((found - ours).abs().max() / ours.abs().max().clamp_min(1))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("table", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_one_step_from_the_last_timestep(prediction: str, table: str) -> None:
    scheduler = diffusers.DDPMScheduler(beta_schedule=table, prediction_type=prediction)
    assert difference(scheduler) < 1e-4


def test_zero_terminal_snr() -> None:
    scheduler = diffusers.DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    assert difference(scheduler) < 1e-4


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("t_init", [1.0, 400.0, 999.0])
def test_one_step_from_an_earlier_timestep(prediction: str, t_init: float) -> None:
    student = pixel_student(diffusers.DDPMScheduler(prediction_type=prediction), t_init)
    scheduler = scheduler_of(student)
    assert difference(diffusers.DDPMScheduler(prediction_type=prediction), t_init) < 1e-4
    scheduler.set_timesteps(1)
    assert scheduler.timesteps.tolist() == [t_init]


@pytest.mark.parametrize("between", ["ode", "noise"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_four_steps(between: Any, prediction: str) -> None:
    scheduler = diffusers.DDPMScheduler(prediction_type=prediction)
    assert difference(scheduler, steps=StepSchedule(EVEN, between)) < 1e-4


def test_betas_make_the_table_again() -> None:
    table = DiscreteVPProcess.zero_terminal_snr(DiscreteVPProcess.scaled_linear()).alphas_cumprod
    again = (1 - torch.tensor(betas(table), dtype=torch.float64)).cumprod(0)
    torch.testing.assert_close(again, table, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("t_init", "steps", "message"),
    [
        (400.5, ONE_STEP, "t_init: found 400.5, expected a whole timestep from 1 to 999"),
        (400.0, StepSchedule((200.0,)), "t_init: found 400 with several steps"),
        (None, StepSchedule((600.0,)), r"steps: found timesteps \[999.0, 600.0\], expected \[999.0, 499.0\]"),
        (None, StepSchedule((666.0, 332.0)), "with a count that divides 1000"),
    ],
)
def test_what_no_scheduler_expresses_is_refused(t_init: float | None, steps: StepSchedule, message: str) -> None:
    with pytest.raises(UserError, match=message):
        scheduler_of(pixel_student(diffusers.DDPMScheduler(), t_init, steps))


def test_edms_first_level_is_refused() -> None:
    with pytest.raises(UserError, match="process.type: found 'edm'"):
        scheduler_of(pixel_student(diffusers.EDMEulerScheduler()))


def test_rectified_flow_from_an_earlier_time_is_refused() -> None:
    with pytest.raises(UserError, match=r"timesteps: found \[0.5\], expected the first at t = 1"):
        scheduler_of(pixel_student(diffusers.FlowMatchEulerDiscreteScheduler(), 0.5))
