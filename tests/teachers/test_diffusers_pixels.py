"""UNet2DModel with the schedulers of DDPM, DDIM and EDM as teachers."""

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers_checks import require_round_trip, require_two_steps
from tiny_pipelines import unet_2d

from unistep.diffusion.process import DiscreteVPProcess, EDMProcess
from unistep.diffusion.samplers import build_sampler
from unistep.errors import UserError
from unistep.teachers.diffusers import Options, compare, teacher_from_pipeline
from unistep.teachers.load import load_teacher


def pipeline_of(scheduler: Any, **changes: Any) -> Any:
    return diffusers.DDPMPipeline(unet_2d(**changes), scheduler)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("table", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
def test_mu_is_what_the_raw_output_and_the_schedulers_alphas_say(prediction: str, table: str) -> None:
    scheduler = diffusers.DDPMScheduler(beta_schedule=table, prediction_type=prediction)
    pipeline = pipeline_of(scheduler)
    teacher = teacher_from_pipeline(pipeline)
    x_t, t = torch.randn(4, 3, 8, 8), torch.tensor([0, 10, 500, 900])
    with torch.no_grad():
        raw = pipeline.unet(x_t, t).sample
    alpha = scheduler.alphas_cumprod[t].sqrt().reshape(-1, 1, 1, 1)
    sigma = (1 - scheduler.alphas_cumprod[t]).sqrt().reshape(-1, 1, 1, 1)
    by_hand = {"epsilon": (x_t - sigma * raw) / alpha, "v_prediction": alpha * x_t - sigma * raw, "sample": raw}
    torch.testing.assert_close(teacher(x_t, t.float()), by_hand[prediction], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_fake_score_is_weighted_as_the_scheduler_says_the_network_was_trained(
    prediction: str, zero_snr: bool
) -> None:
    scheduler = diffusers.DDIMScheduler(prediction_type=prediction, rescale_betas_zero_snr=zero_snr)
    if zero_snr and prediction == "epsilon":
        with pytest.raises(UserError, match="found eps with weight 0 at t = 999"):
            teacher_from_pipeline(pipeline_of(scheduler))
        return
    teacher = teacher_from_pipeline(pipeline_of(scheduler))
    t = torch.tensor([0, 500, 999])
    abar = scheduler.alphas_cumprod[t].double() * (t < (999 if zero_snr else 1000))  # theirs ends at 4.9e-8
    by_hand = {"epsilon": abar / (1 - abar), "v_prediction": 1 / (1 - abar), "sample": torch.ones(3).double()}
    torch.testing.assert_close(teacher.weighting(t.float()).double(), by_hand[prediction], rtol=1e-3, atol=0)


def test_our_ddim_is_the_pipelines() -> None:
    scheduler = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    pipeline = diffusers.DDIMPipeline(unet_2d(), scheduler)
    teacher = teacher_from_pipeline(pipeline)
    pipeline.set_progress_bar_config(disable=True)
    own = pipeline(2, compare.seeded(), num_inference_steps=5, output_type="np", return_dict=False)[0]
    z = torch.randn(2, 3, 8, 8, generator=compare.seeded())
    ours = build_sampler("ddim", 5)(teacher.denoiser, teacher.process, z).x
    torch.testing.assert_close((ours / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1), torch.tensor(own), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", [diffusers.EDMEulerScheduler, diffusers.EDMDPMSolverMultistepScheduler])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_edm_schedulers_are_read_with_their_preconditioning(kind: Any, prediction: str) -> None:
    scheduler = kind(prediction_type=prediction, sigma_data=0.7, sigma_max=40.0, rho=5.0)
    pipeline = pipeline_of(scheduler)
    teacher = teacher_from_pipeline(pipeline)
    assert teacher.process == EDMProcess(0.002, 40.0, 5.0, 1000)
    scheduler.set_timesteps(4)
    z, levels = torch.randn(2, 3, 8, 8), teacher.process.sampling_times(4)
    torch.testing.assert_close(scheduler.sigmas.double(), levels, rtol=1e-5, atol=1e-6)
    x_t, sigma = 40 * z, scheduler.sigmas[0]
    with torch.no_grad():
        raw = pipeline.unet(scheduler.precondition_inputs(x_t, sigma), scheduler.precondition_noise(sigma)).sample
    expected = scheduler.precondition_outputs(x_t, raw, sigma)
    torch.testing.assert_close(teacher(x_t, torch.full((2,), 40.0)), expected, rtol=1e-4, atol=1e-4)
    assert teacher.weighting(torch.tensor([2.0])).item() == pytest.approx(1 / 4 + 1 / 0.49)


def test_our_euler_is_the_edm_schedulers() -> None:
    scheduler = diffusers.EDMEulerScheduler()
    pipeline = pipeline_of(scheduler)
    teacher = teacher_from_pipeline(pipeline)
    scheduler.set_timesteps(4)
    z = torch.randn(2, 3, 8, 8)
    x = 80 * z
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(pipeline.unet(scheduler.scale_model_input(x, t), t).sample, t, x).prev_sample
    ours = build_sampler("euler", 4)(teacher.denoiser, teacher.process, z).x
    assert compare.relative(ours, x) < 1e-5


@pytest.mark.parametrize("null_class", [False, True])
def test_classes(null_class: bool) -> None:
    pipeline = pipeline_of(diffusers.DDPMScheduler(), num_class_embeds=4)
    teacher = teacher_from_pipeline(pipeline, Options(null_class=null_class))
    assert teacher.conditioner is not None and len(teacher.conditioner.names) == 4 - null_class
    x_t, t = torch.randn(2, 3, 8, 8), torch.full((2,), 500.0)
    labels = torch.tensor([1, 0])
    with torch.no_grad():
        raw = pipeline.unet(x_t, t, class_labels=labels).sample
        null = pipeline.unet(x_t, t, class_labels=torch.tensor([3, 3])).sample
    abar = pipeline.scheduler.alphas_cumprod[500]
    torch.testing.assert_close(
        teacher(x_t, t, labels), (x_t - (1 - abar).sqrt() * raw) / abar.sqrt(), rtol=1e-3, atol=1e-3
    )
    if null_class:
        unconditional = teacher(x_t, t, teacher.conditioner.null(2))
        torch.testing.assert_close(unconditional, (x_t - (1 - abar).sqrt() * null) / abar.sqrt(), rtol=1e-3, atol=1e-3)
    else:
        with pytest.raises(UserError, match="label: found no class, expected one.*null_class: true"):
            teacher(x_t, t, teacher.conditioner.null(2))


def test_a_learned_variance_is_left_out() -> None:
    pipeline = pipeline_of(diffusers.DDPMScheduler(variance_type="learned_range"), out_channels=6)
    teacher = teacher_from_pipeline(pipeline)
    x_t, t = torch.randn(1, 3, 8, 8), torch.tensor([500.0])
    with torch.no_grad():
        raw = pipeline.unet(x_t, t).sample[:, :3]
    abar = pipeline.scheduler.alphas_cumprod[500]
    torch.testing.assert_close(teacher(x_t, t), (x_t - (1 - abar).sqrt() * raw) / abar.sqrt(), rtol=1e-3, atol=1e-3)


def test_zero_terminal_snr_and_trained_betas() -> None:
    zero = diffusers.DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    process = teacher_from_pipeline(pipeline_of(zero)).process
    assert isinstance(process, DiscreteVPProcess) and process.alphas_cumprod[-1] == 0
    assert process == DiscreteVPProcess.zero_terminal_snr(DiscreteVPProcess.linear())
    betas = torch.linspace(0.001, 0.1, 50)
    process = teacher_from_pipeline(pipeline_of(diffusers.DDPMScheduler(50, trained_betas=betas.numpy()))).process
    assert isinstance(process, DiscreteVPProcess)
    torch.testing.assert_close(process.alphas_cumprod, (1 - betas.double()).cumprod(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (diffusers.ScoreSdeVeScheduler(), "scheduler: found ScoreSdeVeScheduler, expected one of EDMEuler"),
        (
            diffusers.EulerDiscreteScheduler(timestep_type="continuous", prediction_type="v_prediction"),
            "scheduler.timestep_type: found 'continuous', expected 'discrete'",
        ),
        (
            diffusers.DPMSolverMultistepScheduler(prediction_type="flow_prediction"),
            "scheduler.prediction_type: found 'flow_prediction', expected 'epsilon' or",
        ),
        (
            diffusers.DPMSolverMultistepScheduler(use_flow_sigmas=True),
            "scheduler.prediction_type: found 'epsilon', expected 'flow_prediction'",
        ),
        (
            diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
            "scheduler.invert_sigmas: found True, expected False",
        ),
    ],
)  # fmt: skip
def test_what_a_scheduler_may_not_say(scheduler: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        teacher_from_pipeline(pipeline_of(scheduler))


@pytest.mark.parametrize("kind", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler"])
def test_a_dynamic_shift_without_its_numbers(kind: str) -> None:
    settings = {"use_flow_sigmas": True, "use_dynamic_shifting": True, "prediction_type": "flow_prediction"}
    message = "scheduler.use_dynamic_shifting: found true without base_image_seq_len, max_image_seq_len, .* flow_shift"
    with pytest.raises(UserError, match=message):
        teacher_from_pipeline(pipeline_of(getattr(diffusers, kind)(**settings)))


def test_a_scheduler_whose_table_is_another_than_it_says_is_refused() -> None:
    scheduler = diffusers.DDPMScheduler()
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.sqrt()
    with pytest.raises(UserError, match="found a table of alpha-bar that differs by .* 'linear', expected the same"):
        teacher_from_pipeline(pipeline_of(scheduler))


def test_a_pipeline_that_does_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = pipeline_of(diffusers.DDPMScheduler())
    forward = pipeline.unet.forward
    monkeypatch.setattr(
        pipeline.unet, "forward", lambda x, t, **given: forward(x if t.ndim == 0 else 2 * x, t, **given)
    )
    with pytest.raises(UserError, match="differs by .* from the pipeline's own from the same noise, expected at most"):
        teacher_from_pipeline(pipeline)


def saved(folder: Path, **changes: Any) -> Path:
    pipeline_of(diffusers.DDPMScheduler(), **changes).save_pretrained(folder, safe_serialization=True)
    return folder


def test_a_folder_is_a_teacher_with_its_student(tmp_path: Path) -> None:
    teacher = load_teacher(f"diffusers:{saved(tmp_path / 'pipeline', num_class_embeds=3)}", {"null_class": True})
    same = load_teacher(f"diffusers:{tmp_path / 'pipeline'}", {"null_class": True})
    other = load_teacher(f"diffusers:{tmp_path / 'pipeline'}")
    assert teacher.sha256 == same.sha256 != other.sha256 and teacher.shape == (3, 8, 8)
    require_round_trip(teacher, tmp_path)
    require_two_steps(teacher, tmp_path, guidance=2.0)


def test_an_edm_teacher_learns_too(tmp_path: Path) -> None:
    teacher = teacher_from_pipeline(pipeline_of(diffusers.EDMEulerScheduler()))
    require_round_trip(teacher, tmp_path)
    require_two_steps(teacher, tmp_path)


def test_half_precision_teaches_float32_copies(tmp_path: Path) -> None:
    teacher = load_teacher(f"diffusers:{saved(tmp_path / 'p')}", {"dtype": "bfloat16"})
    assert {p.dtype for p in teacher.denoiser.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in teacher.trainable_copy().parameters()} == {torch.float32}
    x_t = torch.randn(1, 3, 8, 8)
    assert teacher(x_t, torch.tensor([500.0])).dtype == torch.float32
