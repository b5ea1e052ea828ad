"""Our samplers and diffusers' schedulers take the same steps from the same noise."""

import math

import numpy as np
import pytest
import torch

from unistep.diffusion.prediction import from_x0
from unistep.diffusion.process import DiscreteVPProcess, EDMProcess, FlowProcess
from unistep.diffusion.samplers import build_sampler
from unistep.diffusion.samplers.base import Trajectory
from unistep.errors import UserError

pytest.importorskip("diffusers")

LINEAR = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
TRAILING = LINEAR | {"timestep_spacing": "trailing"}
Z = torch.randn(3, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def toy(x_hat: torch.Tensor, sigma_hat: float) -> torch.Tensor:
    """A non-linear denoiser in sigma space: x_0 from x_hat = x_0 + sigma_hat eps."""
    return (x_hat / (1 + sigma_hat**2)).tanh() + 0.1 * math.cos(min(sigma_hat, 1e6))


class Recorder:
    """The toy for any process, keeping the states it is shown: one per step."""

    def __init__(self, process):
        self.process, self.states = process, []

    def __call__(self, x_t, t, cond=None):
        alpha, sigma = float(self.process.alpha(t)[0]), float(self.process.sigma(t)[0])
        self.states.append(x_t.clone())
        return toy(x_t / alpha, sigma / alpha) if alpha > 0 else toy(torch.zeros_like(x_t), 1e6)


def ours(name, process, num_steps, **options):
    recorder = Recorder(process)
    x = build_sampler(name, num_steps, **options)(recorder, process, Z, seeds=torch.arange(len(Z))).x
    return [*recorder.states, x]


def same(a, b, tolerance=1e-5):
    assert len(a) == len(b)
    for ours_x, theirs_x in zip(a, b, strict=True):
        torch.testing.assert_close(ours_x, theirs_x.double(), rtol=tolerance, atol=tolerance)


def vp_model(process, x, timestep):
    """The toy as an eps network of a VP process."""
    t = torch.tensor([float(timestep)], dtype=torch.float64)
    alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
    return (x - alpha * toy(x / alpha, sigma / alpha)) / sigma


@pytest.mark.parametrize("name", ["ddim", "euler"])
def test_ddim(name):
    from diffusers import DDIMScheduler

    process = DiscreteVPProcess.linear()
    scheduler = DDIMScheduler(**TRAILING, clip_sample=False, set_alpha_to_one=True)
    scheduler.set_timesteps(20)
    x, states = Z, [Z]
    for t in scheduler.timesteps:
        x = scheduler.step(vp_model(process, x, t), t, x).prev_sample
        states.append(x)
    same(ours(name, process, 20), states)


def test_ddim_with_noise():
    from diffusers import DDIMScheduler

    process = DiscreteVPProcess.linear()
    scheduler = DDIMScheduler(**TRAILING, clip_sample=False, set_alpha_to_one=True)
    scheduler.set_timesteps(20)
    run = Trajectory(Recorder(process), process, Z, None, torch.arange(len(Z)))
    x, states = Z, [Z]
    for step, t in enumerate(scheduler.timesteps):
        noise = run.noise(x, step)
        x = scheduler.step(vp_model(process, x, t), t, x, eta=0.7, variance_noise=noise).prev_sample
        states.append(x)
    same(ours("ddim", process, 20, eta=0.7), states)


@pytest.mark.parametrize(("name", "eta"), [("ddim", 0.0), ("ddim", 0.7), ("euler", 0.0)])
@pytest.mark.parametrize("table", ["linear", "scaled_linear"])
def test_zero_terminal_snr(name, eta, table):
    """From a timestep without any signal on: their network predicts v, because eps would say nothing there."""
    from diffusers import DDIMScheduler

    betas = {"linear": {}, "scaled_linear": {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": table}}[table]
    process = DiscreteVPProcess.zero_terminal_snr(getattr(DiscreteVPProcess, table)())
    scheduler = DDIMScheduler(**(TRAILING | betas), rescale_betas_zero_snr=True, prediction_type="v_prediction",
                              clip_sample=False, set_alpha_to_one=True)  # fmt: skip
    scheduler.set_timesteps(20)
    recorder, run = Recorder(process), Trajectory(toy, process, Z, None, torch.arange(len(Z)))
    x, states = Z, [Z]
    for step, timestep in enumerate(scheduler.timesteps):
        t = timestep.double()[None]
        v = from_x0(recorder(x, t), x, t.expand(len(x)), "v", process)
        noise = run.noise(x, step) if eta else None
        x = scheduler.step(v, timestep, x, eta=eta, variance_noise=noise).prev_sample
        states.append(x)
    same(ours(name, process, 20, **({"eta": eta} if name == "ddim" else {})), states, 2e-4)


def test_euler_in_sigma_space():
    """Their state is ours divided by alpha."""
    from diffusers import EulerDiscreteScheduler

    process = DiscreteVPProcess.linear()
    scheduler = EulerDiscreteScheduler(**TRAILING)
    scheduler.set_timesteps(20)
    alphas = (1 / (1 + scheduler.sigmas.double() ** 2).sqrt()).tolist()
    x, states = Z / alphas[0], [Z]
    for t, alpha in zip(scheduler.timesteps, alphas[1:], strict=True):
        scheduler.scale_model_input(x, t)
        eps = vp_model(process, alphas[scheduler.step_index] * x, t)
        x = scheduler.step(eps, t, x).prev_sample.double()
        states.append(alpha * x)
    same(ours("euler", process, 20), states)


def test_dpm_solver_vp():
    from diffusers import DPMSolverMultistepScheduler

    process = DiscreteVPProcess.linear()
    scheduler = DPMSolverMultistepScheduler(**TRAILING, final_sigmas_type="zero")
    scheduler.set_timesteps(20)
    x, states = Z, [Z]
    for t in scheduler.timesteps:
        x = scheduler.step(vp_model(process, x, t), t, x).prev_sample
        states.append(x)
    same(ours("dpmpp_2m", process, 20), states)


@pytest.mark.parametrize("num_steps", [2, 4, 20, 50])
def test_pndm(num_steps):
    from diffusers import PNDMScheduler

    process = DiscreteVPProcess.scaled_linear()
    table = LINEAR | {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    scheduler = PNDMScheduler(**table, skip_prk_steps=True, set_alpha_to_one=True, timestep_spacing="trailing")
    scheduler.set_timesteps(num_steps)
    x, states = Z, [Z]
    for t in scheduler.timesteps:
        x = scheduler.step(vp_model(process, x, t), t, x).prev_sample
        states.append(x)
    same(ours("pndm", process, num_steps), states)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 20])
def test_unipc(num_steps):
    from diffusers import UniPCMultistepScheduler

    process = DiscreteVPProcess.linear()
    scheduler = UniPCMultistepScheduler(**TRAILING)
    scheduler.set_timesteps(num_steps)
    x, states = Z, [Z]
    for t in scheduler.timesteps:
        x = scheduler.step(vp_model(process, x, t), t, x).prev_sample
        states.append(x)
    same(ours("unipc", process, num_steps), states, 2e-4)


def test_unipc_needs_signal_at_the_terminal_time():
    with pytest.raises(UserError, match=r"^sampler\.name: found unipc for a process without signal.*; use dpmpp_2m$"):
        build_sampler("unipc", 4)(toy, FlowProcess(), Z)


def edm_states(scheduler, process, num_steps):
    """Runs a sigma-space scheduler with the toy; it takes the raw network F, so the toy is taken apart for it."""
    scheduler.set_timesteps(num_steps)
    x, states = scheduler.sigmas[0].double() * Z, [process.terminal(Z)]
    for i, t in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[i].double()
        scheduler.scale_model_input(x, t)
        c_skip, c_out = 0.25 / (0.25 + sigma**2), 0.5 * sigma / (0.25 + sigma**2).sqrt()
        raw = (toy(x, float(sigma)) - c_skip * x) / c_out
        x = scheduler.step(raw, t, x).prev_sample.double()
        states.append(x)
    return states


def test_edm_euler():
    from diffusers import EDMEulerScheduler

    process = EDMProcess()
    same(ours("euler", process, 18), edm_states(EDMEulerScheduler(), process, 18), 2e-4)


def test_edm_dpm_solver():
    from diffusers import EDMDPMSolverMultistepScheduler

    process = EDMProcess()
    same(ours("dpmpp_2m", process, 18), edm_states(EDMDPMSolverMultistepScheduler(), process, 18), 2e-4)


def test_heun():
    """Theirs is called twice per step; in sigma space, on the Karras grid of its own lowest and highest level."""
    from diffusers import HeunDiscreteScheduler

    scheduler = HeunDiscreteScheduler(**LINEAR, use_karras_sigmas=True)
    scheduler.set_timesteps(12)
    sigmas = scheduler.sigmas.double()
    process = EDMProcess(sigma_min=float(sigmas[-2]), sigma_max=float(sigmas[0]))
    x, states = process.terminal(Z), [process.terminal(Z)]
    at = [sigmas[0], *[s for s in sigmas[1:-1:2] for _ in range(2)]]
    for i, t in enumerate(scheduler.timesteps):
        scheduler.scale_model_input(x, t)
        sigma = at[i]
        x = scheduler.step((x - toy(x, float(sigma))) / sigma, t, x).prev_sample.double()
        states.append(x)
    same(ours("heun", process, 12), states, 2e-4)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_match_euler(shift):
    from diffusers import FlowMatchEulerDiscreteScheduler

    process = FlowProcess(shift=shift)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 10, 10).tolist())
    recorder = Recorder(process)
    x, states = Z, [Z]
    for t in scheduler.timesteps:
        sigma = t.double() / 1000
        velocity = (x - recorder(x, sigma[None])) / sigma
        x = scheduler.step(velocity, t, x).prev_sample.double()
        states.append(x)
    same(ours("euler", process, 10), states)


def test_flow_match_heun():
    """Their grid ends at 1 / num_train_timesteps before the 0, so ours of n steps is theirs of n training timesteps.

    Called twice per step but for the last. With a shift the grids differ: theirs shifts its lowest level twice.
    """
    from diffusers import FlowMatchHeunDiscreteScheduler

    process = FlowProcess()
    scheduler = FlowMatchHeunDiscreteScheduler(num_train_timesteps=10)
    scheduler.set_timesteps(10)
    recorder = Recorder(process)
    x, states = Z, [Z]
    for t in scheduler.timesteps:
        sigma = t.double() / 10
        velocity = (x - recorder(x, sigma[None])) / sigma
        x = scheduler.step(velocity, t, x).prev_sample.double()
        states.append(x)
    same(ours("heun", process, 10), states)


def test_consistency(monkeypatch):
    """Theirs adds sqrt(sigma^2 - sigma_min^2) of noise, as data are at sigma_min for it; ours are at 0, so it is 0."""
    from diffusers import CMStochasticIterativeScheduler
    from diffusers.schedulers import scheduling_consistency_models as home

    process = EDMProcess()
    scheduler = CMStochasticIterativeScheduler(sigma_min=0.0, clip_denoised=False)
    scheduler.set_timesteps(4)
    recorder, run = Recorder(process), Trajectory(toy, process, Z, None, torch.arange(len(Z)))
    x, states = process.terminal(Z), [process.terminal(Z)]
    for step, (t, sigma) in enumerate(zip(scheduler.timesteps, scheduler.sigmas.double(), strict=False)):
        monkeypatch.setattr(home, "randn_tensor", lambda *_, step=step, **__: run.noise(Z, step))
        scheduler.scale_model_input(x, t)
        c_skip, c_out = scheduler.get_scalings_for_boundary_condition(sigma)
        raw = (recorder(x, sigma[None]) - c_skip * x) / c_out
        x = scheduler.step(raw, t, x).prev_sample
        states.append(x)
    same(ours("consistency", process, 4, times=scheduler.sigmas[1:4].tolist()), states)


@pytest.mark.parametrize(
    ("table", "arguments"),
    [
        ("linear", LINEAR),
        ("scaled_linear", LINEAR | {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}),
        ("cosine", {"beta_schedule": "squaredcos_cap_v2"}),
    ],
)
@pytest.mark.parametrize("zero_snr", [False, True])
def test_tables(table, arguments, zero_snr):
    from diffusers import DDIMScheduler

    process = getattr(DiscreteVPProcess, table)()
    if zero_snr:
        process = DiscreteVPProcess.zero_terminal_snr(process)
    theirs = DDIMScheduler(**arguments, rescale_betas_zero_snr=zero_snr).alphas_cumprod.double()
    torch.testing.assert_close(process.alphas_cumprod, theirs, rtol=2e-4, atol=1e-6)
