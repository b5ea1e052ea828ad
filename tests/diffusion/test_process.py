import json
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unistep.diffusion.process import (
    ContinuousVPProcess,
    DiscreteVPProcess,
    EDMProcess,
    FlowProcess,
    NoiseProcess,
    process_from_config,
)
from unistep.errors import UserError

prop = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
unit = st.floats(0, 1)


def f64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def data_time(process: NoiseProcess) -> torch.Tensor:
    return process.sampling_times(2)[-1:]


def test_fulfils_the_contract(process):
    assert isinstance(process, NoiseProcess)


def test_data_is_clean_and_noise_grows(process):
    t = torch.cat([data_time(process), process.time(torch.linspace(0, 1, 50, dtype=torch.float64))])
    alpha, sigma = process.alpha(t), process.sigma(t)
    assert alpha[0] == 1 and sigma[0] == 0
    assert (sigma.diff() > 0).all() and (alpha.diff() <= 0).all()
    assert (alpha >= 0).all() and (sigma[1:] > 0).all()


@prop
@given(u=unit)
def test_scales_keep_their_identity(process, u):
    t = process.time(f64(u))
    alpha, sigma = process.alpha(t), process.sigma(t)
    if process.config()["type"] == "edm":
        assert alpha == 1 and sigma == t
    elif process.config()["type"] == "flow":
        assert alpha + sigma == pytest.approx(1)
    else:
        assert float(alpha**2 + sigma**2) == pytest.approx(1, abs=1e-12)


@prop
@given(u=st.floats(0.05, 0.95))
def test_derivatives_are_those_of_the_scales(process, u):
    t = process.time(f64(u))
    if process.config()["type"] == "discrete_vp":
        t = t + 0.4  # inside a segment; at an entry the slope jumps
    h = 1e-5 * t
    for f, f_dot in ((process.alpha, process.alpha_dot), (process.sigma, process.sigma_dot)):
        difference = (f(t + h) - f(t - h)) / (2 * h)
        torch.testing.assert_close(f_dot(t), difference, rtol=1e-6, atol=1e-9)


@prop
@given(n=st.integers(1, 60))
def test_sampling_times_go_from_terminal_to_data(process, n):
    times = process.sampling_times(n)
    assert times.shape == (n + 1,) and times.dtype == torch.float64
    assert (times.diff() < 0).all()
    torch.testing.assert_close(times[:1], process.time(f64(1.0)))
    assert process.sigma(times[-1:]) == 0


def test_sampling_needs_a_step(process):
    with pytest.raises(UserError, match="num_steps: found 0"):
        process.sampling_times(0)


def test_terminal_noise_has_the_scale_of_the_terminal_time(process):
    scale = float(process.terminal(torch.ones(1, 2))[0, 0])
    assert scale == pytest.approx(float(process.sigma(process.time(f64(1.0)))), rel=3e-3)


def test_dtype_follows_the_time(process):
    t = process.time(torch.tensor([0.3, 1.0]))
    for f in (process.alpha, process.sigma, process.alpha_dot, process.sigma_dot):
        assert f(t).dtype == torch.float32 and f(t).shape == (2,)


def test_config_round_trip(process):
    again = process_from_config(json.loads(json.dumps(process.config())))
    assert again == process
    assert again.num_bins == process.num_bins


def test_edm_grid_has_its_known_values():
    index = f64(0, 20, 100, 200, 250, 300, 400, 500, 600, 700, 800, 900, 980, 998, 999)
    known = f64(0.002, 0.00323, 0.0168, 0.0853, 0.170, 0.319, 0.969, 2.53, 5.87, 12.4, 24.5, 45.6, 72.1, 79.56, 80)
    torch.testing.assert_close(EDMProcess().time(index / 999), known, rtol=4e-3, atol=0)


def test_edm_sampling_grid_has_its_known_values():
    known = f64(80, 57.6, 40.8, 28.4, 19.4, 12.9, 8.40, 5.32, 3.26, 1.92, 1.09)
    known = torch.cat([known, f64(0.585, 0.296, 0.140, 0.060, 0.023, 0.0075, 0.002, 0)])
    torch.testing.assert_close(EDMProcess().sampling_times(18), known, rtol=5e-3, atol=0)
    assert EDMProcess().sampling_times(1).tolist() == [80, 0]


def test_edm_share_of_bins_below_sigma():
    levels = EDMProcess().time(torch.linspace(0, 1, 1000, dtype=torch.float64))
    for sigma, share in ((0.1, 0.21), (0.5, 0.34), (1, 0.40), (2.5, 0.50), (10, 0.67), (40, 0.88)):
        assert float((levels < sigma).double().mean()) == pytest.approx(share, abs=0.006)


def test_stable_diffusion_terminal_scales():
    process = DiscreteVPProcess.scaled_linear()
    assert float(process.alpha(f64(999))) == pytest.approx(0.0683, abs=5e-5)
    assert float(process.sigma(f64(999))) == pytest.approx(0.9977, abs=5e-5)


def test_continuous_vp_in_edm_coordinates():
    process = ContinuousVPProcess()
    t = f64(1e-3, 1.0)
    ratio = process.sigma(t) / process.alpha(t)
    expected = ((19.9 * t**2 / 2 + 0.1 * t).exp() - 1).sqrt()
    torch.testing.assert_close(ratio, expected)
    assert ratio.tolist() == pytest.approx([0.0105, 152], rel=5e-3)


def test_discrete_tables_hit_their_entries():
    process = DiscreteVPProcess.cosine(num_steps=50)
    t = torch.arange(50, dtype=torch.float64)
    torch.testing.assert_close(process.alpha(t) ** 2, process.alphas_cumprod, rtol=1e-10, atol=1e-14)
    assert process.alpha(torch.arange(50)).dtype == torch.float32  # integer timesteps are times too


def test_the_table_goes_to_a_device_once():
    process, t = DiscreteVPProcess.linear(), torch.zeros(2, device="meta")
    process.angle(t)
    before = process._on_device[t.device]
    process.angle(t)
    assert process._on_device[t.device] is before
    process._phi = None  # nothing is left to copy from
    process.angle(t)


def test_zero_terminal_snr_ends_exactly_without_signal_and_keeps_its_start():
    base = DiscreteVPProcess.scaled_linear()
    process = DiscreteVPProcess.zero_terminal_snr(base)
    end = process.time(f64(1.0))
    assert process.alpha(end) == 0 and process.sigma(end) == 1
    assert process.alpha(end.float()) == 0
    torch.testing.assert_close(process.alpha(f64(0)), base.alpha(f64(0)))


def test_trailing_timesteps():
    assert DiscreteVPProcess.linear().sampling_times(4).tolist() == [999, 749, 499, 249, -1]
    with pytest.raises(UserError, match="at most 10"):
        DiscreteVPProcess.linear(num_steps=10).sampling_times(11)


@prop
@given(u=unit, shift=st.floats(0.2, 12))
def test_flow_shift_has_its_inverse(u, shift):
    there = FlowProcess(shift=shift).shifted(f64(u))
    torch.testing.assert_close(FlowProcess(shift=1 / shift).shifted(there), f64(u))


@prop
@given(u=unit, rho=st.floats(1, 12))
def test_edm_time_has_its_inverse(u, rho):
    process = EDMProcess(rho=rho)
    low, high = process.sigma_min ** (1 / rho), process.sigma_max ** (1 / rho)
    assert float((process.time(f64(u)) ** (1 / rho) - low) / (high - low)) == pytest.approx(u, abs=1e-9)


def test_training_levels_are_timesteps():
    process = DiscreteVPProcess.linear()
    index = torch.arange(1000, dtype=torch.float32)
    assert torch.equal(process.time(index / 999), index)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"type": "vp"}, "process.type: found 'vp', expected one of edm"),
        ({"type": "edm", "sigma": 3}, "sigma"),
        ({"type": "edm", "sigma_min": 3, "sigma_max": 2}, "0 < sigma_min < sigma_max"),
        ({"type": "edm", "rho": 0}, "process.rho: found 0"),
        ({"type": "edm", "num_bins": 1}, "process.num_bins: found 1"),
        ({"type": "discrete_vp", "table": "square"}, "process.table: found 'square'"),
        ({"type": "discrete_vp", "alphas_cumprod": [0.1, 0.9]}, "strictly decreasing"),
        ({"type": "discrete_vp", "num_steps": 1}, "process.num_steps: found 1"),
        ({"type": "continuous_vp", "beta_min": 0}, "beta_min > 0"),
        ({"type": "continuous_vp", "t_min": 1}, "process.t_min: found 1"),
        ({"type": ["edm"]}, r"process.type: found \['edm'\], expected one of edm"),
        ({"type": "edm", "rho": math.nan}, "process.rho: found nan, expected a finite number"),
        ({"type": "edm", "sigma_max": math.inf}, "process.sigma_max: found inf, expected a finite number"),
        ({"type": "continuous_vp", "beta_d": math.inf}, "process.beta_d: found inf, expected a finite number"),
        ({"type": "flow", "shift": math.inf}, "process.shift: found inf, expected a finite number"),
        ({"type": "discrete_vp", "beta_start": -1}, "found beta_start -1 and .*expected 0 < beta_start < beta_end < 1"),
        ({"type": "discrete_vp", "table": "scaled_linear", "beta_start": -1}, "found beta_start -1 and beta_end 0.012"),
        ({"type": "discrete_vp", "beta_end": math.nan}, "beta_end nan, expected"),
        ({"type": "discrete_vp", "table": "cosine", "offset": -1}, "found offset -1 and .*expected offset >= 0"),
        ({"type": "discrete_vp", "table": "linear", "alphas_cumprod": [0.9, 0.1]}, "'linear' beside alphas_cumprod"),
        ({"type": "discrete_vp", "table": ["linear"]}, r"process.table: found \['linear'\]"),
        ({"type": "flow", "shift": -1}, "process.shift: found -1"),
    ],
)
def test_mistakes_are_named(config, words):
    with pytest.raises(UserError, match=words):
        process_from_config(config)


def test_a_custom_table_survives_its_config():
    process = DiscreteVPProcess([0.9, 0.5, 0.0])
    assert process_from_config(process.config()) == process
    assert hash(process) == hash(process_from_config(process.config()))
    assert "custom" in repr(process) and "linear" in repr(DiscreteVPProcess.linear())
    assert float(process.alpha(f64(1.0))) == pytest.approx(math.sqrt(0.5))
