"""SiD: the loss by hand, its gradient through both scores, and a Gaussian that is matched."""

import pytest
import torch
from fixed_random import FixedRandom
from small import PROCESSES, full_batch, made_of, only
from torch import Tensor

from unistep.diffusion.process import EDMProcess
from unistep.diffusion.process.noising import noised
from unistep.errors import UserError
from unistep.losses.score_identity import score_identity_loss
from unistep.methods.sid import SiD, SiDConfig


def make(**settings: object) -> SiD:
    return SiDConfig(name="sid", **settings).build(made_of())  # type: ignore[arg-type]


@pytest.mark.parametrize("a", [0.0, 1.0, 1.2])
def test_the_two_forms_of_the_loss_agree(a: float) -> None:
    x, mu_base, mu_fake = (torch.randn(7, 3, 4) for _ in range(3))
    d = mu_base - mu_fake
    dot = (1 - a) * d.square() + d * (mu_fake - x)
    expected = dot.mean((1, 2)) / (x - mu_base).abs().mean((1, 2))
    torch.testing.assert_close(score_identity_loss(x, mu_base, mu_fake, a), expected)


def test_equal_scores_and_an_exact_answer_cost_nothing() -> None:
    x, mu = torch.randn(2, 7, 3)
    assert not score_identity_loss(x, mu, mu, 1.2).any()
    assert not score_identity_loss(x, x, mu, 1.2)[0].isnan()
    assert float(score_identity_loss(x, x, mu, 1.2).abs().max()) == 0


def test_the_gradient_goes_through_both_scores() -> None:
    method, batch = make(alpha=1.2), full_batch()
    with torch.no_grad():
        for p in method.fake_score.parameters():
            p.mul_(0.9)
    phase = method.phases(0)[0]
    only(method, phase)
    phase.loss(batch, FixedRandom(4)).total().backward()
    found = [p.grad.clone() for p in method.generator.parameters() if p.grad is not None]

    rng, process = FixedRandom(4), method.process
    x = method.generator(rng.normal(batch.size, 2))
    t = process.time(rng.integers(batch.size, 0, 800) / 999)
    x_t = noised(process, x, t, rng.normal(batch.size, 2))
    d = method.teacher.denoiser(x_t, t) - method.fake_score(x_t, t)
    weight = 1 / (x - method.teacher.denoiser(x_t, t)).abs().mean(1, keepdim=True).detach()
    loss = (weight * d * (method.teacher.denoiser(x_t, t) - x - 1.2 * d)).mean()
    expected = torch.autograd.grad(loss, list(method.generator.parameters()))
    torch.testing.assert_close(found, list(expected), rtol=1e-3, atol=1e-6)


def test_a_float16_teacher_is_refused_whose_gradients_would_be_rounded_to_zero() -> None:
    half = made_of()
    half.teacher.denoiser.half()
    with pytest.raises(UserError, match="method.name: sid: found a teacher in float16, expected bfloat16 or float32"):
        SiDConfig(name="sid").build(half)


def test_the_fake_score_learns_at_edms_levels() -> None:
    method, rng = make(), FixedRandom(1)
    sigma, x_t = method.config.sample_fake_noised(method.process, torch.zeros(20_000, 2), rng)
    assert float(sigma.log().mean()) == pytest.approx(-1.2, abs=0.03)
    assert float(sigma.log().std()) == pytest.approx(1.2, abs=0.03)
    assert float((x_t / sigma[:, None]).std()) == pytest.approx(1, abs=0.02)
    uniform, rng = make(fake_levels="uniform"), FixedRandom(1)
    uniform.config.sample_fake_noised(uniform.process, torch.zeros(5, 2), rng)
    assert rng.ranges == [(0, 999)]


def posterior_mean(x_t: Tensor, sigma: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """E[x_0 | x_t] of N(mean, std^2) at alpha = 1."""
    return mean + std**2 / (std**2 + sigma[:, None] ** 2) * (x_t - mean)


@pytest.mark.parametrize("a", [0.5, 1.0, 1.2])
def test_an_affine_generator_becomes_the_teachers_gaussian(a: float) -> None:
    torch.manual_seed(0)
    process, mean, std = EDMProcess(0.02, 10.0), torch.tensor([0.5, -1.0]), torch.tensor([0.3, 1.2])
    scale, shift = torch.ones(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    adam = torch.optim.Adam([scale, shift], lr=0.02, betas=(0.5, 0.99))
    for step in range(600):
        x = scale * torch.randn(256, 2) + shift
        sigma = process.time(torch.randint(0, 801, (256,)) / 999)
        x_t = x + sigma[:, None] * torch.randn_like(x)
        mu_base = posterior_mean(x_t, sigma, mean, std)
        mu_fake = posterior_mean(x_t, sigma, shift.detach(), scale.detach())
        adam.param_groups[0]["lr"] = 0.02 * (1 - step / 600)
        adam.zero_grad()
        score_identity_loss(x, mu_base, mu_fake, a).mean().backward()
        adam.step()
    torch.testing.assert_close(shift.detach(), mean, atol=0.04, rtol=0)
    torch.testing.assert_close(scale.detach().abs(), std, atol=0.04, rtol=0.04)


def test_processes_have_uniform_levels() -> None:
    assert SiDConfig(name="sid", fake_levels="uniform").build(made_of(PROCESSES[3])).networks
