"""f-distill: h(r) = r^2 f''(r) of each divergence, and nothing new for the reverse KL."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from fixed_random import FixedRandom
from small import full_batch, made_of
from torch import Tensor

from unistep.diffusion.process import EDMProcess
from unistep.losses.f_divergence import density_ratio, divergence_weight
from unistep.methods.dmd2 import DMD2Config
from unistep.methods.f_distill import DECAY, DensityRatioWeight, FDistillConfig

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
    r = torch.linspace(0.1, 20, 41, dtype=torch.float64)
    torch.testing.assert_close(divergence_weight(r, divergence), r.square() * curvature(F[divergence], r))  # type: ignore[arg-type]


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
        weight = divergence_weight((log_p - log_q).exp(), divergence)  # type: ignore[arg-type]
    s_fake, s_real = -(x - 0.3) / 0.9**2, -x
    found = torch.trapezoid(log_q.exp() * weight * (s_fake - s_real), x)
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=0)


def test_ratios_are_clipped() -> None:
    torch.testing.assert_close(density_ratio(torch.tensor([-100.0, 0.0, 100.0])), torch.tensor([0.1, 1.0, 20.0]))


def test_ratios_are_divided_by_the_running_mean_of_their_tenth_of_the_grid() -> None:
    process = EDMProcess()
    means = DensityRatioWeight(process, "js", lambda tensor: tensor)
    t = process.time(torch.tensor([0.05, 0.07, 0.55, 0.95]))
    r = torch.tensor([2.0, 4.0, 0.5, 8.0])
    assert torch.equal(means.normalize(r, t), r)  # the means of a discriminator without an opinion are 1
    means.update()
    expected = torch.ones(10)
    expected[[0, 5, 9]] += (1 - DECAY) * (torch.tensor([3.0, 0.5, 8.0]) - 1)
    torch.testing.assert_close(means.mean, expected)
    torch.testing.assert_close(means.normalize(r, t), r / expected[[0, 0, 5, 9]])
    assert means.state_dict().keys() == {"mean"}  # saved with the run


def test_the_means_do_not_depend_on_how_a_step_is_split() -> None:
    process, draws = EDMProcess(), torch.Generator().manual_seed(0)
    t, r = process.time(torch.rand(64, generator=draws)), torch.rand(64, generator=draws) + 0.5
    whole, split = (DensityRatioWeight(process, "js", lambda tensor: tensor) for _ in range(2))
    whole.normalize(r, t)
    for rows in (slice(0, 16), slice(16, 64)):
        torch.testing.assert_close(split.normalize(r[rows], t[rows]), r[rows])  # of the steps before
    for means in (whole, split):
        means.update()
    torch.testing.assert_close(split.mean, whole.mean)


def test_h_is_divided_by_its_mean_on_all_ranks() -> None:
    """Another rank with as many rows, all of which have h = 3."""
    ranks = replace(made_of(), sum_over_ranks=lambda packed: packed + torch.tensor([15.0, 5.0]))
    method = FDistillConfig(name="f_distill", divergence="kl").build(ranks)
    logits = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])
    method.fake_score.forward = lambda *a, output="mu": (a[0], logits)  # type: ignore[method-assign,assignment]
    h = method.evaluate_fake(torch.randn(5, 2), torch.ones(5), None)[1]
    torch.testing.assert_close(h, logits.exp() / ((logits.exp().sum() + 15) / 10))


def test_mu_and_logit_come_from_one_pass() -> None:
    method = FDistillConfig(name="f_distill").build(made_of())
    calls: list[dict[str, Any]] = []
    method.fake_score.register_forward_hook(lambda module, inputs, named, out: calls.append(named), with_kwargs=True)
    method.phases(0)[0].loss(full_batch(), FixedRandom())
    assert calls == [{"output": "both"}, {"output": "logits"}]  # at x_t, and the GAN's


def test_the_reverse_kl_is_dmd2() -> None:
    plain = DMD2Config(name="dmd2").build(made_of())
    same = FDistillConfig(name="f_distill", divergence="reverse_kl").build(made_of())
    found, expected = (m.phases(0)[0].loss(full_batch(), FixedRandom(2)) for m in (same, plain))
    assert all(torch.equal(found.terms[name], expected.terms[name]) for name in expected.terms)


def test_samples_that_look_real_weigh_more_in_the_forward_kl() -> None:
    method = FDistillConfig(name="f_distill", divergence="kl").build(made_of())
    x, t = torch.randn(5, 2), torch.ones(5)
    logits = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])
    method.fake_score.forward = lambda *a, output="mu": (x, logits)  # type: ignore[method-assign,assignment]
    h = method.evaluate_fake(x, t, None)[1]
    torch.testing.assert_close(h / h[2], logits.exp())
    torch.testing.assert_close(h.mean(), torch.tensor(1.0))
