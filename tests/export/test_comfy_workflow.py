"""ComfyUI's arithmetic with the workflow's settings gives the generator's samples; nodes are linked to nodes."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from unistep.diffusion.process import FlowProcess
from unistep.errors import UserError
from unistep.export import Student
from unistep.export.comfy.workflow import is_zero_snr, settings_of, workflow_of
from unistep.export.comfy.write import marks
from unistep.networks.generator import ONE_STEP, StepSchedule

sys.path.insert(0, str(Path(__file__).parent))
from students import pixel_student, tiny

EVEN = (749.0, 499.0, 249.0)


def sigmas(zsnr: bool) -> Tensor:
    """Levels sqrt(1 / alpha-bar - 1) of Stable Diffusion's table as ComfyUI builds it, float32."""
    alpha_bar = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0)
    if zsnr:
        root = alpha_bar.sqrt()
        alpha_bar = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        alpha_bar[-1] = 4.8973451890853435e-08
    return (1 / alpha_bar - 1).sqrt().float()


@torch.no_grad()
def sampled(student: Student, settings: dict[str, Any], z: Tensor, noise: list[Tensor]) -> Tensor:
    """What KSampler does with the settings: samplers `euler` and `lcm`, scheduler `simple`."""
    network: Any = student.generator.denoiser.network
    table, steps = sigmas(settings["zsnr"]), settings["steps"]
    levels = [float(table[-(1 + int(i * len(table) / steps))]) for i in range(steps)] + [0.0]
    levels[0] = settings.get("first_sigma", levels[0])
    is_last = math.isclose(float(table[-1]), levels[0], rel_tol=1e-5)
    x = z * (math.sqrt(1 + levels[0] ** 2) if is_last else levels[0])
    for sigma, following in zip(levels, levels[1:], strict=False):
        t = (table.log() - math.log(sigma)).abs().argmin()
        scale = math.sqrt(1 + sigma**2)
        output = network(x / scale, t, return_dict=False)[0]
        x_0 = x - sigma * output if settings["sampling"] == "eps" else x / scale**2 - output * sigma / scale
        if settings["sampler"] == "lcm":
            x = x_0 + (following * noise.pop(0) if following else 0)
        else:
            x = x + (x - x_0) / sigma * (following - sigma)
    return x


def difference(scheduler: Any, t_init: float | None = None, steps: StepSchedule = ONE_STEP) -> float:
    """Of ComfyUI's walk from the generator's, relative to the largest value."""
    student = pixel_student(scheduler, t_init, steps)
    denoiser: Any = student.generator.denoiser
    z, *noise = torch.randn(5, 3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = student.generator.sample_with_noise(z, None, lambda step: noise[step])
    found = sampled(student, settings_of(student, denoiser), z, list(noise))
    assert float(ours.std()) > 0.01
    return float((found - ours).abs().max() / ours.abs().max().clamp_min(1))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("t_init", [None, 1.0, 400.0, 998.0])
def test_one_step(prediction: str, t_init: float | None) -> None:
    assert difference(diffusers.DDPMScheduler(**tiny.LATENT, prediction_type=prediction), t_init) < 1e-4


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("between", ["ode", "noise"])
def test_four_steps(between: Any, prediction: str) -> None:
    scheduler = diffusers.DDPMScheduler(**tiny.LATENT, prediction_type=prediction)
    assert difference(scheduler, steps=StepSchedule(EVEN, between)) < 1e-4


def test_zero_terminal_snr_but_for_what_comfyui_leaves_of_the_signal() -> None:
    scheduler = diffusers.DDIMScheduler(**tiny.LATENT, rescale_betas_zero_snr=True, prediction_type="v_prediction")
    assert 1e-5 < difference(scheduler) < 1e-3  # alpha = 2.2e-4 times noise of up to 4


def settings(scheduler: Any, t_init: float | None = None, steps: StepSchedule = ONE_STEP) -> dict[str, Any]:
    student = pixel_student(scheduler, t_init, steps)
    denoiser: Any = student.generator.denoiser
    return settings_of(student, denoiser)


def test_settings_and_the_marks_of_the_prediction() -> None:
    plain = settings(diffusers.DDPMScheduler(**tiny.LATENT), steps=StepSchedule(EVEN, "noise"))
    assert plain == {"steps": 4, "cfg": 1.0, "sampler": "lcm", "scheduler": "simple", "sampling": "eps", "zsnr": False}
    zero = settings(diffusers.DDIMScheduler(**tiny.LATENT, rescale_betas_zero_snr=True, prediction_type="v_prediction"))
    assert zero["sampling"] == "v_prediction" and zero["zsnr"] and zero["sampler"] == "euler"
    assert set(marks(zero)) == {"v_pred", "ztsnr"} and not marks(plain)


@pytest.mark.parametrize("t_init", [None, 400.0])
def test_links_lead_to_nodes(t_init: float | None) -> None:
    told = settings(diffusers.DDPMScheduler(**tiny.LATENT), t_init)
    nodes = json.loads(json.dumps(workflow_of("mine.safetensors", told, 512, 768)))
    links = [value for node in nodes.values() for value in node["inputs"].values() if isinstance(value, list)]
    assert links and all(source in nodes and isinstance(output, int) for source, output in links)
    assert nodes["checkpoint"]["inputs"]["ckpt_name"] == "mine.safetensors"
    assert nodes["size"]["inputs"] == {"width": 768, "height": 512, "batch_size": 1}
    kinds = {node["class_type"] for node in nodes.values()}
    assert ("KSampler" in kinds) == (t_init is None) and ("SetFirstSigma" in kinds) == (t_init is not None)
    ends = set(nodes) - {source for source, _ in links}
    assert ends == {"image"}


def test_other_tables_and_predictions_are_refused() -> None:
    with pytest.raises(UserError, match="^process: found another one, expected Stable Diffusion's table of alpha-bar"):
        settings(diffusers.DDPMScheduler())
    with pytest.raises(UserError, match="^process: found another one"):
        is_zero_snr(FlowProcess())
    with pytest.raises(UserError, match="^prediction: found 'x0', expected eps or v"):
        settings(diffusers.DDPMScheduler(**tiny.LATENT, prediction_type="sample"))
