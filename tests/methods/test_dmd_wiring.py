"""What the method computes, by hand: every process, weighting, class and the guided real score, not the loss alone."""

import dataclasses
from pathlib import Path

import pytest
import torch
from fixed_random import FixedRandom
from small import dmd_with, small_teacher
from torch import Tensor, nn

from unistep.costing.synthetic_batches import PairRows
from unistep.diffusion.process import ContinuousVPProcess, EDMProcess, FlowProcess
from unistep.diffusion.process.base import NoiseProcess
from unistep.losses.regression import l2
from unistep.methods import Batch, DMDConfig, Fit
from unistep.methods.base import Method
from unistep.methods.inputs import MethodInputs
from unistep.teachers.analytic import GaussianMixture, teacher_from_mixture
from unistep.teachers.teacher import Teacher
from unistep.training import Streams, TrainingConfig, train

MEANS = torch.tensor([[0.4, -1.0], [1.5, 0.2], [-1.0, 1.0]])
PROCESSES = [EDMProcess(sigma_min=0.02, sigma_max=10.0), ContinuousVPProcess(), FlowProcess(shift=2.0)]
ROWS = 30
COND = torch.arange(ROWS) % 3


class ByClass(nn.Module):
    """G(z, k) = a_k z + b_k."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor([1.3, 0.7, 1.0])), nn.Parameter(torch.randn(3, 2))

    def forward(self, z: Tensor, cond: Tensor) -> Tensor:
        return self.a[cond, None] * z + self.b[cond]


def three_classes(process: NoiseProcess) -> Teacher:
    return teacher_from_mixture(GaussianMixture(MEANS, 0.6, process), "three", conditional=True)


def other_score(process: NoiseProcess) -> GaussianMixture:
    return GaussianMixture(MEANS.flip(0), 1.1, process)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("weighting", ["eq8", "sigma_over_alpha", "sigma3_over_alpha", "uniform"])
def test_the_generators_gradient(process: NoiseProcess, weighting: str) -> None:
    torch.manual_seed(0)
    teacher, fake, G = three_classes(process), other_score(process), ByClass()
    config = DMDConfig(lambda_dm=3.0, lambda_reg=0, regression="l2", weighting=weighting)  # type: ignore[arg-type]
    method = dmd_with(teacher, G, fake, config, guidance=2.0)
    output = method.phases(0)[0].loss(Batch(size=ROWS, cond=COND), FixedRandom(7))
    found = torch.autograd.grad(output.total(), [G.a, G.b])

    rng = FixedRandom(7)
    x = G(rng.normal(ROWS, 2), COND)
    t = process.time(rng.integers(ROWS, 20, 980) / 999)
    alpha, sigma = process.alpha(t)[:, None], process.sigma(t)[:, None]
    x_t = (alpha * x + sigma * rng.normal(ROWS, 2)).detach()
    null, mu_fake = teacher(x_t, t, torch.full((ROWS,), -1)), fake(x_t, t, COND)
    mu_base = null + 2.0 * (teacher(x_t, t, COND) - null)
    weight = {
        "eq8": 1 / (x - mu_base).abs().mean(1, keepdim=True).detach(),
        "sigma_over_alpha": alpha / sigma,
        "sigma3_over_alpha": alpha * sigma,
        "uniform": (alpha / sigma) ** 2,
    }[weighting]
    expected = torch.autograd.grad(3.0 * (weight * (mu_fake - mu_base) * x).mean(), [G.a, G.b])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    w = teacher.weighting(t)
    for name, mu in (("fake_denoise", mu_fake), ("teacher_denoise", teacher(x_t, t, COND))):
        torch.testing.assert_close(output.logs[name], (w * (mu - x.detach()).square().mean(1)).mean())


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_the_fake_scores_loss(process: NoiseProcess) -> None:
    teacher, fake, x = three_classes(process), other_score(process), torch.randn(ROWS, 2)
    method = dmd_with(teacher, ByClass(), fake, DMDConfig(lambda_reg=0, regression="l2"))
    batch = Batch(size=ROWS, cond=COND, samples=x)
    found = method.phases(0)[1].loss(batch, FixedRandom(7)).terms["denoise"]
    rng = FixedRandom(7)
    t = process.time(rng.integers(ROWS, 0, 999) / 999)
    x_t = process.alpha(t)[:, None] * x + process.sigma(t)[:, None] * rng.normal(ROWS, 2)
    torch.testing.assert_close(found, teacher.weighting(t) * (fake(x_t, t, COND) - x).square().mean(1))


def test_regression_is_weighted_and_sees_the_pairs_own_classes() -> None:
    teacher, G = three_classes(PROCESSES[0]), ByClass()
    config = DMDConfig(lambda_reg=0.25, regression="l2", dm_from_step=5, fake_score_from_step=5)
    method = dmd_with(teacher, G, other_score(PROCESSES[0]), config, l2)
    z, y, classes = torch.randn(4, 2), torch.randn(4, 2), torch.tensor([2, 0, 1, 1])
    batch = Batch(size=ROWS, cond=COND, pair_z=z, pair_x=y, pair_cond=classes)
    found = method.phases(0)[0].loss(batch, FixedRandom()).total()
    torch.testing.assert_close(found, 0.25 * (G(z, classes) - y).square().mean())


def test_copies_of_the_teacher_learn_without_dropout() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train()
    teacher = Teacher.from_module(network, EDMProcess(), "x0", (2,))
    copy = teacher.trainable_copy()
    assert not any(module.training for module in copy.modules())
    assert all(p.requires_grad for p in copy.parameters())


def test_a_fitted_network_learns_the_teachers_answer_not_the_sample() -> None:
    process = PROCESSES[0]
    teacher = teacher_from_mixture(GaussianMixture(MEANS, 0.6, process), "three")
    x = torch.randn(ROWS, 2)
    exact = Fit(teacher, teacher.denoiser)
    assert exact.loss(Batch(size=ROWS, real=x), FixedRandom()).total() == 0
    other = Fit(teacher, other_score(process))
    assert other.loss(Batch(size=ROWS, real=x), FixedRandom()).total() > 0


def test_outputs_for_the_pairs_noise_join_both_scores_batches() -> None:
    """Algorithm 1 for LAION: x := concat(x, x_ref), in one pass of G, conditions and all."""
    torch.manual_seed(0)
    process, pairs = PROCESSES[1], 7
    teacher, fake, G = three_classes(process), other_score(process), ByClass()
    config = DMDConfig(lambda_reg=0.25, regression="l2", match_pairs=True, fake_score_updates_per_step=2)
    method = dmd_with(teacher, G, fake, config, l2, guidance=2.0)
    z_ref, y, classes = torch.randn(pairs, 2), torch.randn(pairs, 2), torch.arange(pairs) % 3
    batch = Batch(size=ROWS, cond=COND, pair_z=z_ref, pair_x=y, pair_cond=classes)
    first, second, third = method.phases(0)
    calls: list[int] = []
    G.register_forward_hook(lambda module, args, output: calls.append(len(output)))
    output = first.loss(batch, FixedRandom(7))
    assert calls == [ROWS + pairs]
    found = torch.autograd.grad(output.total(), [G.a, G.b])

    rng = FixedRandom(7)
    cond = torch.cat([COND, classes])
    x = G(torch.cat([rng.normal(ROWS, 2), z_ref]), cond)
    t = process.time(torch.cat([rng.integers(n, 20, 980) for n in (ROWS, pairs)]) / 999)
    alpha, sigma = process.alpha(t)[:, None], process.sigma(t)[:, None]
    eps = torch.cat([rng.normal(n, 2) for n in (ROWS, pairs)])  # each stream has draws of its own
    x_t = (alpha * x + sigma * eps).detach()
    null = teacher(x_t, t, torch.full((ROWS + pairs,), -1))
    mu_base = null + 2.0 * (teacher(x_t, t, cond) - null)
    gradient = (fake(x_t, t, cond) - mu_base) / (x - mu_base).abs().mean(1, keepdim=True).detach()
    expected = (gradient * x).mean() + 0.25 * (x[ROWS:] - y).square().mean()
    torch.testing.assert_close(found, torch.autograd.grad(expected, [G.a, G.b]), rtol=1e-4, atol=1e-6)

    assert output.samples is not None and torch.equal(output.samples, x.detach())
    assert isinstance(output.cond, Tensor) and torch.equal(output.cond, cond)
    for phase, given in (
        (second, dataclasses.replace(batch, samples=output.samples, cond=output.cond)),
        (third, batch),
    ):
        assert phase.inputs == {"pairs"}
        assert len(phase.loss(given, FixedRandom(8)).terms["denoise"]) == ROWS + pairs


@pytest.mark.parametrize("settings", [{"lambda_dm": 0}, {"lambda_reg": 0}])
def test_what_is_not_there_is_not_matched(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="match_pairs: found true with lambda_dm"):
        DMDConfig(match_pairs=True, **settings)  # type: ignore[arg-type]


def test_the_loop_hands_the_joint_condition_to_the_fake_score(tmp_path: Path) -> None:
    """Two ways to split the step into micro-batches see the same rows, so that the weights agree."""
    ends = [trained(tmp_path / str(n), accumulate=n) for n in (1, 2)]
    for name in ("generator", "fake_score"):
        for one, two in zip(*(method.networks[name].parameters() for method in ends), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def trained(folder: Path, accumulate: int) -> Method:
    teacher = small_teacher(classes=3)
    made = MethodInputs(teacher=teacher, copy=teacher.trainable_copy, prepare=lambda network: network, steps=3,
                       regression=l2, guidance=1.5)  # fmt: skip
    method = DMDConfig(regression="l2", match_pairs=True, fake_score_updates_per_step=2).build(made)
    config = TrainingConfig.model_validate(
        {"steps": 3, "batch": 8, "pair_batch": 4, "accumulate": accumulate, "device": "cpu", "precision": "fp32",
         "log_every": 1, "checkpoint": {"every_minutes": None}}
    )  # fmt: skip
    draws = torch.Generator().manual_seed(2)
    pairs = PairRows(*(torch.randn(12, 2, generator=draws) for _ in range(2)), torch.arange(12) % 3)
    streams = Streams(seed=0, batch=8, pair_batch=4, conditioner=teacher.conditioner, pairs=pairs)  # fmt: skip
    train(method, streams, config, folder)
    return method
