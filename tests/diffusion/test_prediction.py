from itertools import product
from typing import get_args

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unistep.diffusion.prediction import (
    Prediction,
    coefficients,
    convert,
    from_x0,
    require_x0,
    require_x0_on_grid,
    to_x0,
)
from unistep.diffusion.process import DiscreteVPProcess, EDMProcess, FlowProcess
from unistep.errors import UserError

KINDS: tuple[Prediction, ...] = get_args(Prediction)
ZERO_SNR = DiscreteVPProcess.zero_terminal_snr(DiscreteVPProcess.linear())
prop = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def noised(process, u: float, seed: int, rows: int = 3):
    generator = torch.Generator().manual_seed(seed)
    x_0, eps = torch.randn(2, rows, 2, 3, dtype=torch.float64, generator=generator)
    t = process.time(torch.full((rows,), u, dtype=torch.float64))
    alpha, sigma = process.alpha(t)[:, None, None], process.sigma(t)[:, None, None]
    return x_0, eps, alpha * x_0 + sigma * eps, t


@prop
@given(u=st.floats(0.0, 0.99), seed=st.integers(0, 1000))
def test_every_conversion_there_and_back(process, u, seed):
    x_0, _, x_t, t = noised(process, u, seed)
    for source, target in product(KINDS, KINDS):
        pred = from_x0(x_0, x_t, t, source, process)
        there = convert(pred, x_t, t, source, target, process)
        torch.testing.assert_close(there, from_x0(x_0, x_t, t, target, process), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(convert(there, x_t, t, target, source, process), pred, rtol=1e-6, atol=1e-6)


@prop
@given(u=st.floats(0.01, 0.99), seed=st.integers(0, 1000))
def test_every_kind_means_what_its_definition_says(process, u, seed):
    x_0, eps, x_t, t = noised(process, u, seed)
    alpha, sigma, alpha_dot, sigma_dot = (
        f(t)[:, None, None] for f in (process.alpha, process.sigma, process.alpha_dot, process.sigma_dot)
    )
    sd = 0.7
    total = (alpha * sd) ** 2 + sigma**2
    expected = {
        "x0": x_0,
        "eps": eps,
        "v": alpha * eps - sigma * x_0,
        "velocity": alpha_dot * x_0 + sigma_dot * eps,
        "score": -eps / sigma,
        "F": (x_0 - alpha * sd**2 / total * x_t) / (sigma * sd / total.sqrt()),
    }
    for kind in KINDS:
        pred = from_x0(x_0, x_t, t, kind, process, sigma_data=sd)
        torch.testing.assert_close(pred, expected[kind], rtol=1e-6, atol=1e-7)
        a, b = coefficients(kind, process, t, sigma_data=sd)
        torch.testing.assert_close(a[:, None, None] * x_0 + b[:, None, None] * x_t, pred)
        assert a.dtype == torch.float64


def test_edm_F_has_unit_variance_coefficients():
    t = torch.tensor([80.0], dtype=torch.float64)
    a, b = coefficients("F", EDMProcess(), t)
    assert float(1 / a) == pytest.approx(0.49999, abs=1e-5)  # c_out(80)
    assert float(-b / a) == pytest.approx(3.9e-5, rel=5e-3)  # c_skip(80)


def test_flow_velocity_is_noise_minus_data():
    x_0, eps, x_t, t = noised(FlowProcess(), 0.4, 0)
    torch.testing.assert_close(from_x0(x_0, x_t, t, "velocity", FlowProcess()), eps - x_0)


@pytest.mark.parametrize("process", [FlowProcess(), ZERO_SNR], ids=["flow", "zero-snr"])
def test_noise_and_score_are_one_thing_without_signal_too(process):
    t = process.time(torch.ones(2, dtype=torch.float64))
    eps = torch.tensor([[1.0, -2.0], [3.0, 0.5]])
    assert torch.equal(convert(eps, eps, t, "eps", "score", process), -eps)
    assert torch.equal(convert(-eps, eps, t, "score", "eps", process), eps)


@pytest.mark.parametrize("kinds", [("eps", "score"), ("score", "eps")])
def test_without_noise_there_is_neither(kinds):
    x = torch.zeros(1, 2)
    with pytest.raises(UserError, match="found t = 0, expected another time: sigma = 0"):
        convert(x, x, torch.zeros(1), *kinds, FlowProcess())


@pytest.mark.parametrize("process", [FlowProcess(), ZERO_SNR], ids=["flow", "zero-snr"])
@pytest.mark.parametrize("kind", ["eps", "score"])
def test_noise_alone_does_not_determine_the_sample(process, kind):
    x_0, _, x_t, t = noised(process, 1.0, 0)
    pred = from_x0(x_0, x_t, t, kind, process)  # this way round is fine
    with pytest.raises(UserError, match=f"prediction {kind}: found t = {float(t[0]):g}"):
        require_x0(kind, process, t)
    assert not to_x0(pred, x_t, t, kind, process).isfinite().any()  # no check in a forward pass, but no number either
    with pytest.raises(UserError, match=f"prediction {kind}: found t = {float(t[0]):g}"):
        require_x0_on_grid(kind, process)
    require_x0_on_grid("v", process)


@pytest.mark.parametrize("process", [FlowProcess(), ZERO_SNR], ids=["flow", "zero-snr"])
@pytest.mark.parametrize("kind", ["x0", "v", "velocity", "F"])
def test_the_others_do_at_alpha_zero(process, kind):
    x_0, _, x_t, t = noised(process, 1.0, 0)
    torch.testing.assert_close(to_x0(from_x0(x_0, x_t, t, kind, process), x_t, t, kind, process), x_0)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "x0"])
def test_a_clean_sample_does_not_determine_its_noise(process, kind):
    x = torch.ones(1, 2, dtype=torch.float64)
    t = process.sampling_times(1)[-1:]
    with pytest.raises(UserError, match=f"prediction {kind}: found t ="):
        from_x0(x, x, t, kind, process)
    assert from_x0(x, x, t, "x0", process) is x


def test_one_singular_row_is_found_in_a_batch():
    with pytest.raises(UserError, match="found t = 1,"):
        require_x0("eps", FlowProcess(), torch.tensor([0.2, 1.0, 0.5]))


def test_unknown_kind_is_named():
    with pytest.raises(UserError, match="prediction: found 'noise'; did you mean eps\\? expected one of x0, eps"):
        coefficients("noise", EDMProcess(), torch.ones(1))  # type: ignore[arg-type]


def test_float32_stays_float32():
    x = torch.ones(2, 3)
    assert to_x0(x, x, torch.ones(2), "eps", EDMProcess()).dtype == torch.float32


def test_the_grid_is_checked_where_networks_are_built_without_memory():
    with torch.device("meta"):
        require_x0_on_grid("v", ZERO_SNR)
        with pytest.raises(UserError, match="prediction eps: found t = 999"):
            require_x0_on_grid("eps", ZERO_SNR)
