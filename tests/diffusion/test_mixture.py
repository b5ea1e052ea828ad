import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unistep.diffusion.process import EDMProcess, FlowProcess
from unistep.errors import UserError
from unistep.teachers.analytic import GaussianMixture, mixture_teacher, teacher_from_mixture

prop = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MEANS = torch.tensor([[0.8, -0.2], [-0.5, 0.6], [0.1, -1.0]])
STD = torch.tensor([0.3, 0.1, 0.5])
WEIGHTS = torch.tensor([0.5, 0.3, 0.2])


def mixture(process) -> GaussianMixture:
    return GaussianMixture(MEANS, STD, process, WEIGHTS)


def points(process, u: float, seed: int):
    t = process.time(torch.full((4,), u, dtype=torch.float64))
    x = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return process.alpha(t)[:, None] * MEANS[[0, 1, 2, 0]] + (0.3 + process.sigma(t)[:, None]) * x, t


@prop
@given(u=st.floats(0, 1), seed=st.integers(0, 1000), labels=st.sampled_from([None, (0, 1, 2, -1)]))
def test_score_is_the_slope_of_the_log_density(process, u, seed, labels):
    model, (x_t, t) = mixture(process), points(process, u, seed)
    cond = None if labels is None else torch.tensor(labels)
    h = 1e-5 * float((process.sigma(t) + process.alpha(t)).max())
    score = model.score(x_t, t, cond)
    for axis in range(2):
        step = h * torch.eye(2, dtype=torch.float64)[axis]
        slope = (model.log_density(x_t + step, t, cond) - model.log_density(x_t - step, t, cond)) / (2 * h)
        torch.testing.assert_close(score[:, axis], slope, rtol=1e-5, atol=1e-5)


@prop
@given(u=st.floats(0, 1), seed=st.integers(0, 1000))
def test_tweedie(process, u, seed):
    """alpha mu = x_t + sigma^2 score, by the slope of the log density."""
    model, (x_t, t) = mixture(process), points(process, u, seed)
    x_t.requires_grad_(True)
    (slope,) = torch.autograd.grad(model.log_density(x_t, t).sum(), x_t)
    sigma = process.sigma(t)[:, None]
    torch.testing.assert_close(process.alpha(t)[:, None] * model(x_t, t), x_t + sigma**2 * slope, rtol=1e-7, atol=1e-7)


def test_without_signal_mu_is_the_mean():
    x_t = torch.randn(5, 2, dtype=torch.float64)
    mean = (WEIGHTS[:, None] * MEANS).sum(0).double()
    torch.testing.assert_close(mixture(FlowProcess())(x_t, torch.ones(5)), mean.expand(5, 2))


def test_at_data_mu_is_the_sample(process):
    x = MEANS.double()
    t = process.sampling_times(1)[-1:].expand(3)
    torch.testing.assert_close(mixture(process)(x, t), x)
    assert mixture(process).score(x, t).isfinite().all()


def test_density_integrates_to_one():
    axis = torch.linspace(-6, 6, 241, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    density = mixture(FlowProcess()).log_density(x, torch.full((len(x),), 0.4)).exp()
    assert float(density.sum() * (axis[1] - axis[0]) ** 2) == pytest.approx(1, abs=1e-6)


def test_samples_have_the_mixture_s_moments():
    model = mixture(EDMProcess())
    x = model.sample(torch.arange(4000)).double()
    assert (x.mean(0) - (WEIGHTS[:, None] * MEANS).sum(0)).abs().max() < 0.05
    assert float(x.var(0).mean().sqrt()) == pytest.approx(model.sigma_data, abs=0.02)
    nearest = torch.cdist(x, MEANS.double()).argmin(1)
    assert float((nearest == 1).double().mean()) == pytest.approx(0.3, abs=0.06)


def test_sample_4711_is_the_same_in_any_company():
    model = mixture(EDMProcess())
    alone = model.sample(torch.tensor([4711]))[0]
    assert torch.equal(model.sample(torch.tensor([3, 4711, 9]))[1], alone)


def test_a_label_selects_its_component():
    model = mixture(EDMProcess())
    x = model.sample(torch.arange(300), torch.tensor([1]).expand(300))
    assert float(torch.linalg.vector_norm(x - MEANS[1], dim=1).max()) < 6 * 0.1
    t = torch.ones(2)
    one = GaussianMixture(MEANS[1:2], 0.1, EDMProcess())
    torch.testing.assert_close(model(x[:2], t, torch.tensor([1, 1])), one(x[:2], t))
    torch.testing.assert_close(model(x[:2], t, torch.tensor([-1, -1])), model(x[:2], t))


def test_images_go_through_the_same_code():
    means = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    model = GaussianMixture(means, 0.2, FlowProcess())
    flat = GaussianMixture(means.flatten(1), 0.2, FlowProcess())
    x, t = torch.randn(2, 1, 4, 4), torch.tensor([0.3, 0.9])
    torch.testing.assert_close(model(x, t).flatten(1), flat(x.flatten(1), t))
    assert model.sample(torch.arange(2)).shape == x.shape
    assert teacher_from_mixture(model, "test", conditional=True).shape == (1, 4, 4)


@pytest.mark.parametrize(("name", "modes"), [("ring8", 8), ("grid25", 25)])
def test_built_in_teachers(name, modes):
    teacher = mixture_teacher(name)
    assert isinstance(teacher.denoiser, GaussianMixture)
    assert len(teacher.denoiser.means) == modes and teacher.shape == (2,)
    assert teacher.process == EDMProcess(sigma_min=0.02, sigma_max=10.0)
    assert 0.5 < teacher.denoiser.sigma_data < 0.72
    expected = 1 / 0.25 + 1 / teacher.denoiser.sigma_data**2
    assert float(teacher.weighting(torch.tensor([0.5]))) == pytest.approx(expected)
    assert teacher.sha256 == mixture_teacher(name).sha256 != mixture_teacher(name, FlowProcess()).sha256
    assert teacher.conditioner is None
    conditioner = mixture_teacher(name, conditional=True).conditioner
    assert conditioner is not None and len(conditioner.names) == modes


def test_ring_is_a_ring():
    model = GaussianMixture.ring(EDMProcess())
    torch.testing.assert_close(model.means.norm(dim=1), torch.ones(8, dtype=torch.float64))
    assert model.sigma_data == pytest.approx(math.sqrt(0.5 + 0.06**2))


def test_mistakes_are_named():
    with pytest.raises(UserError, match="found 'ring9', expected one of ring8, grid25"):
        mixture_teacher("ring9")
    with pytest.raises(UserError, match="one positive number per component"):
        GaussianMixture(MEANS, 0.0, EDMProcess())
    with pytest.raises(UserError, match="found a condition of text"):
        mixture(EDMProcess())(MEANS, torch.ones(3), {"text": torch.ones(3)})
