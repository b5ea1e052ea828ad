"""f-distill: h(r) = r^2 f''(r) of each divergence, and nothing new for the reverse KL."""

from typing import Any

import pytest
import torch
from fixed_random import FixedRandom
from small import full_batch, made_of
from torch import Tensor

from unistep.losses.f_divergence import divergence_weight
from unistep.methods.dmd2 import DMD2Config
from unistep.methods.f_distill import FDistillConfig

F = {
    "reverse_kl": lambda r: -r.log(),
    "kl": lambda r: r * r.log(),
    "js": lambda r: r * r.log() - (1 + r) * ((1 + r) / 2).log(),
    "hellinger": lambda r: 4 * (1 - r.sqrt()),
    "jeffreys": lambda r: (r - 1) * r.log(),
}


def curvature(f: Any, r: Tensor) -> Tensor:
    r = r.clone().requires_grad_()
    (slope,) = torch.autograd.grad(f(r).sum(), r, create_graph=True)
    return torch.autograd.grad(slope.sum(), r)[0]


@pytest.mark.parametrize("divergence", F)
def test_h_is_r_squared_times_the_curvature_of_f(divergence: str) -> None:
    logits = torch.linspace(-1.5, 2.5, 41, dtype=torch.float64)  # where nothing is clipped
    r = logits.exp()
    expected = r.square() * curvature(F[divergence], r)
    found = divergence_weight(logits, divergence).double()  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected / expected.mean(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("divergence", F)
def test_the_weighted_scores_are_the_gradient_of_the_divergence(divergence: str) -> None:
    """Of D_f(p | q) = E_q f(p / q) with p = N(0, 1) and q = N(theta, 0.9^2), by quadrature."""
    x = torch.linspace(-4, 4.5, 8001, dtype=torch.float64)  # r stays within the clip where there is any mass
    theta = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def log_normal(x: Tensor, mean: Tensor | float, std: float) -> Tensor:
        return -0.5 * ((x - mean) / std).square() - torch.log(torch.tensor(std * (2 * torch.pi) ** 0.5))

    log_p, log_q = log_normal(x, 0.0, 1.0), log_normal(x, theta, 0.9)
    divergence_of = torch.trapezoid(log_q.exp() * F[divergence]((log_p - log_q).exp()), x)
    (expected,) = torch.autograd.grad(divergence_of, theta)
    with torch.no_grad():
        inside = ((log_p - log_q).exp() > 0.1) & ((log_p - log_q).exp() < 20)
        x, log_p, log_q = x[inside], log_p[inside], log_q[inside]
        weight = divergence_weight(log_p - log_q, divergence).double()  # type: ignore[arg-type]
        r = (log_p - log_q).exp()
    weight = weight * (r.square() * curvature(F[divergence], r)).mean()  # without its normalisation
    s_fake, s_real = -(x - 0.3) / 0.9**2, -x
    found = torch.trapezoid(log_q.exp() * weight * (s_fake - s_real), x)
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=0)


def test_weights_are_clipped_and_have_mean_one() -> None:
    found = divergence_weight(torch.tensor([-100.0, 0.0, 100.0]), "kl")
    torch.testing.assert_close(found, torch.tensor([0.1, 1.0, 20.0]) / torch.tensor([0.1, 1.0, 20.0]).mean())


def test_the_reverse_kl_is_dmd2() -> None:
    plain = DMD2Config(name="dmd2").build(made_of())
    same = FDistillConfig(name="f_distill", divergence="reverse_kl").build(made_of())
    found, expected = (m.loss(m.phases(0)[0], full_batch(), FixedRandom(2)) for m in (same, plain))
    assert all(torch.equal(found.terms[name], expected.terms[name]) for name in expected.terms)


def test_samples_that_look_real_weigh_more_in_the_forward_kl() -> None:
    method = FDistillConfig(name="f_distill", divergence="kl").build(made_of())
    x, t = torch.randn(5, 2), torch.ones(5)
    mu = torch.randn(5, 2), torch.randn(5, 2)
    logits = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])
    method.fake_score.forward = lambda *a, judged=False: (x, logits)  # type: ignore[method-assign,assignment]
    ratio = method.gradient(x, x, t, *mu, None) / super(type(method), method).gradient(x, x, t, *mu, None)
    torch.testing.assert_close(ratio[:, 0] / ratio[2, 0], logits.exp())
