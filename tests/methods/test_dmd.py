"""DMD's contract: who learns when, what flows where, and which samples are reused."""

import pytest
import torch
from fixed_random import FixedRandom
from pydantic import ValidationError
from small import dmd_with

from unistep.diffusion.process import EDMProcess
from unistep.diffusion.weighting import training_weighting
from unistep.errors import UserError
from unistep.losses.regression import l2
from unistep.methods import DMD, Batch, DMDConfig, Phase
from unistep.networks import MLP, EDMDenoiser, Generator
from unistep.teachers.codecs import PointCodec
from unistep.teachers.conditioners import LabelConditioner
from unistep.teachers.teacher import Teacher
from unistep.training import OptimConfig
from unistep.training.optim import learning_rate


def make(conditional: bool = False, **settings: object) -> DMD:
    torch.manual_seed(0)
    process, classes = EDMProcess(), 3 if conditional else 0
    teacher = Teacher(
        denoiser=EDMDenoiser(MLP(2, 16, 1, classes), process, label_dim=classes), process=process, shape=(2,),
        weighting=training_weighting("F", process), codec=PointCodec(), source="test", sha256="0",
        conditioner=LabelConditioner(classes) if classes else None,
    )  # fmt: skip
    generator = Generator(teacher.trainable_copy(), process)
    config = DMDConfig(regression="l2", **settings)  # type: ignore[arg-type]
    return dmd_with(teacher, generator, teacher.trainable_copy(), config, l2)


def pairs() -> Batch:
    return Batch(size=4, pair_z=torch.randn(3, 2), pair_x=torch.randn(3, 2))


def run(method: DMD, phase: Phase, batch: Batch) -> dict[str, float]:
    """Gradient norm per network after one phase, with only the phase's networks trainable, as the loop does it."""
    for name, network in method.networks.items():
        network.requires_grad_(name in phase.trains)
        network.zero_grad()
    phase.loss(batch, FixedRandom()).total().backward()
    return {
        name: sum(float(p.grad.square().sum()) for p in network.parameters() if p.grad is not None)
        for name, network in method.networks.items()
    }


def test_phases_follow_algorithm_1() -> None:
    assert [p.name for p in make().phases(0)] == ["generator", "fake_score"]
    three = make(fake_score_updates_per_step=3).phases(0)
    assert [(p.name, p.reuses_samples) for p in three[1:]] == [
        ("fake_score", True), ("fake_score.1", False), ("fake_score.2", False)
    ]  # fmt: skip


def test_late_start_of_distribution_matching() -> None:
    method = make(dm_from_step=10, fake_score_from_step=6)
    names = {step: [p.name for p in method.phases(step)] for step in (0, 6, 10)}
    assert names == {0: ["regression"], 6: ["regression", "fake_score"], 10: ["generator", "fake_score"]}
    assert method.milestones() == {"generator": (10,), "fake_score": (6,)}
    assert [method.phases(step)[1].reuses_samples for step in (6, 10)] == [False, True]


def test_milestones_are_where_a_networks_own_loss_begins_later_than_the_run() -> None:
    assert make().milestones() == {}
    assert make(dm_from_step=10).milestones() == {"generator": (10,)}  # the fake score learns from the start
    assert make(lambda_dm=0, dm_from_step=10, fake_score_from_step=6).milestones() == {}
    never = make(dm_from_step=10, fake_score_from_step=6, fake_score_updates_per_step=0)
    assert never.milestones() == {"generator": (10,)}


@pytest.mark.parametrize("begins", [0, 6])
def test_the_fake_score_warms_up_from_its_first_update(begins: int) -> None:
    method, optim = make(dm_from_step=10, fake_score_from_step=begins), OptimConfig(lr=1.0, warmup=4)
    first = next(step for step in range(20) if any(p.trains == ("fake_score",) for p in method.phases(step)))
    rates = [learning_rate(optim, step, 20, method.milestones().get("fake_score", ())) for step in range(first, 20)]
    assert rates == [0.25, 0.5, 0.75, *[1.0] * (17 - begins)]


def test_regression_only_never_touches_the_fake_score() -> None:
    assert [p.name for p in make(lambda_dm=0).phases(0)] == ["regression"]


@pytest.mark.parametrize(("settings", "index"), [({"dm_from_step": 5, "fake_score_from_step": 5}, 0), ({}, 0), ({}, 1)])
def test_a_phase_moves_only_its_networks(settings: dict[str, int], index: int) -> None:
    method = make(**settings)
    phase = method.phases(0)[index]
    norms = run(method, phase, pairs())
    for name, norm in norms.items():
        assert (norm > 0) == (name in phase.trains)
    assert all(p.grad is None for p in method.teacher.denoiser.parameters())


def test_noise_ranges_of_the_two_phases() -> None:
    method, rng = make(), FixedRandom()
    for phase in method.phases(0):
        phase.loss(pairs(), rng)
    assert rng.ranges == [(20, 980), (0, 999)]


def test_fake_score_learns_from_the_samples_of_the_step() -> None:
    method = make()
    generator, fake_score = method.phases(0)
    samples = generator.loss(pairs(), FixedRandom()).samples
    assert samples is not None
    assert not samples.requires_grad
    shifted = Batch(size=4, samples=samples + 100)
    near = fake_score.loss(Batch(size=4, samples=samples), FixedRandom(1)).total()
    far = fake_score.loss(shifted, FixedRandom(1)).total()
    assert far > 10 * near


def test_loss_terms_are_per_sample_and_weighted() -> None:
    method = make(lambda_reg=0.25)
    output = method.phases(0)[0].loss(pairs(), FixedRandom())
    assert {k: tuple(v.shape) for k, v in output.terms.items()} == {"dm": (4,), "reg": (3,)}
    expected = output.terms["dm"].mean() + 0.25 * output.terms["reg"].mean()
    torch.testing.assert_close(output.total(), expected)


def test_the_real_score_is_guided_and_the_fake_score_is_not() -> None:
    method = make(conditional=True)
    x, t, cond = torch.randn(4, 2), torch.ones(4), torch.tensor([0, 1, 2, 0])
    null = method.teacher(x, t, torch.full((4,), -1))
    expected = null + 2.5 * (method.teacher(x, t, cond) - null)
    guided = dmd_with(method.teacher, method.generator, method.fake_score, method.config, l2, guidance=2.5)
    torch.testing.assert_close(guided.mu_base(x, t, cond), expected)
    torch.testing.assert_close(guided.fake_score(x, t, cond), method.teacher(x, t, cond))
    with pytest.raises(UserError, match="takes no conditions"):
        dmd_with(make().teacher, method.generator, method.fake_score, method.config, l2, guidance=2.5)


def test_generator_and_fake_score_start_from_the_teacher() -> None:
    method = make()
    z = torch.randn(5, 2)
    torch.testing.assert_close(method.generator(z), method.teacher(80 * z, torch.full((5,), 80.0)))
    x, t = torch.randn(5, 2), torch.rand(5) + 0.1
    torch.testing.assert_close(method.fake_score(x, t), method.teacher(x, t))


@pytest.mark.parametrize(
    "bad",
    [{"lambda_dm": 0, "lambda_reg": 0}, {"min_fraction": 0.9, "max_fraction": 0.5},
     {"lambda_reg": 0, "dm_from_step": 5}, {"fake_score_from_step": 5}, {"lamda_reg": 1}],
)  # fmt: skip
def test_contradictory_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        DMDConfig(**bad)  # type: ignore[arg-type]
