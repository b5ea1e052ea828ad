"""The distribution-matching gradient against closed forms: Gaussian teacher, affine generator, exact denoisers."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unistep.diffusion.process import ContinuousVPProcess, EDMProcess, FlowProcess
from unistep.diffusion.process.base import NoiseProcess
from unistep.losses.distribution_matching import distribution_matching_gradient, distribution_matching_loss

PROCESSES = [EDMProcess(sigma_min=0.02, sigma_max=10.0), ContinuousVPProcess(), FlowProcess(shift=2.0)]
TIMES = torch.linspace(0.05, 0.95, 7)


def exact_denoiser(x_t: Tensor, alpha: Tensor, sigma: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """E[x_0 | x_t] for x_0 ~ N(mean, std^2)."""
    gain = alpha * std**2 / (alpha**2 * std**2 + sigma**2)
    return mean + gain * (x_t - alpha * mean)


def quadrature() -> tuple[Tensor, Tensor, Tensor]:
    """Nodes z, eps and weights that integrate polynomials of degree <= 11 against two unit Gaussians exactly."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(6)
    weights = weights / weights.sum()
    z, eps = np.meshgrid(nodes, nodes, indexing="ij")
    return torch.tensor(z.ravel()), torch.tensor(eps.ravel()), torch.tensor(np.outer(weights, weights).ravel())


GradientRule = Callable[..., Tensor]


def parameter_gradient(process: NoiseProcess, rule: GradientRule, weighting: str, fake_lag: float = 0.0) -> Tensor:
    """d/d(a, b) of the surrogate for G(z) = a z + b, averaged over TIMES, with exact mu_base and mu_fake."""
    m, s = torch.tensor(0.4).double(), torch.tensor(0.6).double()
    theta = torch.tensor([1.3, -0.7], dtype=torch.float64, requires_grad=True)
    z, eps, weights = quadrature()
    total = torch.zeros((), dtype=torch.float64)
    for u in TIMES:
        t = process.time(u.expand(len(z)).double())
        alpha, sigma = process.alpha(t).double(), process.sigma(t).double()
        x = theta[0] * z + theta[1]
        x_t = (alpha * x + sigma * eps).detach()
        a, b = (theta + fake_lag).detach()
        mu_base, mu_fake = exact_denoiser(x_t, alpha, sigma, m, s), exact_denoiser(x_t, alpha, sigma, b, a)
        g = rule(x[:, None], mu_base[:, None], mu_fake[:, None], alpha, sigma, weighting)
        total = total + (weights * distribution_matching_loss(x[:, None], g)).sum() / len(TIMES)
    return torch.autograd.grad(total, theta)[0]


def analytic_kl_gradient(process: NoiseProcess) -> Tensor:
    """d/d(a, b) of the mean over TIMES of KL(fake || real), both Gaussians of mean alpha b, alpha m."""
    m, s = 0.4, 0.6
    theta = torch.tensor([1.3, -0.7], dtype=torch.float64, requires_grad=True)
    total = torch.zeros((), dtype=torch.float64)
    for u in TIMES:
        t = process.time(u.reshape(1).double())
        alpha, sigma = process.alpha(t).double()[0], process.sigma(t).double()[0]
        v_fake, v_real = (alpha * theta[0]) ** 2 + sigma**2, (alpha * s) ** 2 + sigma**2
        shift = alpha * (theta[1] - m)
        total = total + 0.5 * ((v_fake + shift**2) / v_real - 1 - (v_fake / v_real).log()) / len(TIMES)
    return torch.autograd.grad(total, theta)[0]


def check_kl_gradient(rule: GradientRule, fake_lag: float = 0.0) -> None:
    """The surrogate's gradient with w_t = 1 equals the analytic gradient of the time-averaged KL on every process."""
    for process in PROCESSES:
        ours = parameter_gradient(process, rule, "uniform", fake_lag)
        torch.testing.assert_close(ours, analytic_kl_gradient(process), rtol=2e-5, atol=1e-6)


def test_uniform_weight_is_the_gradient_of_the_time_averaged_kl() -> None:
    check_kl_gradient(distribution_matching_gradient)


def wrong_sign(*args: object) -> Tensor:
    return -distribution_matching_gradient(*args)  # type: ignore[arg-type]


def missing_weight(x: Tensor, mu_base: Tensor, mu_fake: Tensor, alpha: Tensor, sigma: Tensor, w: str) -> Tensor:
    return mu_fake - mu_base


@pytest.mark.parametrize(
    ("rule", "fake_lag"), [(wrong_sign, 0.0), (missing_weight, 0.0), (distribution_matching_gradient, 0.05)],
    ids=["wrong sign", "missing weight", "stale fake score"],
)  # fmt: skip
def test_planted_errors_are_caught(rule: GradientRule, fake_lag: float) -> None:
    with pytest.raises(AssertionError, match="not close"):
        check_kl_gradient(rule, fake_lag)


@pytest.mark.parametrize("weighting", ["eq8", "sigma_over_alpha", "sigma3_over_alpha", "uniform"])
def test_gradient_is_zero_when_fake_equals_real(weighting: str) -> None:
    x, mu = torch.randn(5, 2, 3), torch.randn(5, 2, 3)
    g = distribution_matching_gradient(x, mu, mu.clone(), torch.full((5,), 0.8), torch.full((5,), 0.6), weighting)  # type: ignore[arg-type]
    assert torch.equal(g, torch.zeros_like(x))


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 1.0), st.floats(0.01, 50.0), st.integers(0, 2**31))
def test_weightings_rescale_one_integrand_per_sample(alpha: float, sigma: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, mu_base, mu_fake = torch.randn(3, 4, 6, generator=generator)[:, :, None].unbind(0)
    a, s = torch.full((4,), alpha), torch.full((4,), sigma)

    def gradient(weighting: str) -> Tensor:
        return distribution_matching_gradient(x, mu_base, mu_fake, a, s, weighting)  # type: ignore[arg-type]

    difference = mu_fake - mu_base
    mae = (x - mu_base).abs().mean((1, 2), keepdim=True)
    torch.testing.assert_close(gradient("uniform"), alpha**2 / sigma**2 * difference, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradient("eq8"), difference / mae, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradient("sigma_over_alpha"), alpha / sigma * difference, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradient("sigma3_over_alpha"), alpha * sigma * difference, rtol=1e-4, atol=1e-6)


def test_algorithm_2_differs_from_eq_7_times_eq_8_by_alpha() -> None:
    alpha, sigma = torch.tensor([0.3, 0.9]), torch.tensor([0.95, 0.43])
    x, mu_base, mu_fake = torch.randn(3, 2, 8).unbind(0)
    s_real, s_fake = ((alpha[:, None] * mu - 0.0) / sigma[:, None] ** 2 for mu in (mu_base, mu_fake))  # x_t cancels
    w_t = sigma**2 / alpha / (mu_base - x).abs().mean(1)  # Eq. 8
    eq7 = (w_t * alpha)[:, None] * (s_fake - s_real)  # Eq. 7
    ours = distribution_matching_gradient(x, mu_base, mu_fake, alpha, sigma, "eq8")
    torch.testing.assert_close(eq7, alpha[:, None] * ours)


def test_zero_denominator_gives_zero_for_that_sample_only() -> None:
    x = torch.randn(3, 4)
    mu_base = torch.cat([x[:1], torch.randn(2, 4)])
    g = distribution_matching_gradient(x, mu_base, mu_base + 1, torch.ones(3), torch.ones(3))
    assert torch.equal(g[0], torch.zeros(4))
    assert (g[1:].abs() > 0).all()


def test_surrogate_gradient_is_the_wanted_one_over_numel() -> None:
    x = torch.randn(5, 3, 4, requires_grad=True)
    g = torch.randn(5, 3, 4)
    distribution_matching_loss(x, g).mean().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, g / (5 * 3 * 4))
