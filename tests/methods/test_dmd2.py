"""DMD2: turns of the fake score, the GAN on its features, and backward simulation that is sampling."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fixed_random import FixedRandom
from small import PROCESSES, ROWS, dmd_with, full_batch, made_of, only
from torch import Tensor, nn

from unistep.diffusion.process.noising import noised
from unistep.methods import DMDConfig
from unistep.methods.backward_simulation import backward_simulation
from unistep.methods.dmd2 import DMD2, DMD2Config
from unistep.methods.scores import sample_noised
from unistep.networks.generator import Generator, StepSchedule, first_level


def make(classes: int = 0, **settings: Any) -> DMD2:
    return DMD2Config(name="dmd2", **settings).build(made_of(classes=classes))


def test_phases_take_turns_five_to_one_and_share_the_first_samples() -> None:
    phases = make().phases(0)
    assert [(p.name, p.reuses_samples) for p in phases] == [
        ("generator", False), ("fake_score", True), *((f"fake_score.{i}", False) for i in range(1, 5))
    ]  # fmt: skip
    assert all(p.inputs == {"images"} for p in phases)


def test_without_gan_and_steps_the_generators_loss_is_that_of_dmd_without_regression() -> None:
    inputs = made_of()
    dmd2 = DMD2(inputs, DMD2Config(name="dmd2", lambda_gan=0))
    dmd = dmd_with(inputs.teacher, dmd2.generator, dmd2.fake_score, DMDConfig(lambda_reg=0))
    for i in (0, 1):
        found, expected = (m.phases(0)[i].loss(full_batch(), FixedRandom(3)) for m in (dmd2, dmd))
        assert found.terms.keys() == expected.terms.keys()
        assert all(torch.equal(found.terms[name], expected.terms[name]) for name in found.terms)


def lively(method: DMD2) -> DMD2:
    """The head with an opinion."""
    with torch.no_grad():
        for p in method.fake_score.head.parameters():  # type: ignore[union-attr]
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(4)))
    return method


def test_the_gan_terms_by_hand() -> None:
    method, batch = lively(make(classes=3, lambda_gan=0.5)), full_batch(3)
    D = partial(method.fake_score, output="both")
    output = method.phases(0)[0].loss(batch, FixedRandom(5))
    rng, process = FixedRandom(5), method.process
    x = method.generator(rng.normal(ROWS, 2), batch.cond)
    for low, high in ((20, 980), (0, 999)):  # distribution matching's noise, then the GAN's own
        t = process.time(rng.integers(ROWS, low, high) / 999)
        x_t = noised(process, x, t, rng.normal(ROWS, 2))
    torch.testing.assert_close(output.terms["gan"], F.softplus(-D(x_t, t, batch.cond)[1]))
    assert output.weights == {"dm": 1.0, "gan": 0.5}

    samples, rng = torch.randn(ROWS, 2), FixedRandom(6)
    output = method.phases(0)[2].loss(full_batch(3).__class__(**{**vars(batch), "samples": samples}), rng)
    rng, noise = FixedRandom(6), []
    for clean in (samples, samples, batch.real):
        t = process.time(rng.integers(ROWS, 0, 999) / 999)
        assert clean is not None
        noise.append((noised(process, clean, t, rng.normal(ROWS, 2)), t))
    mu = method.fake_score(*noise[0], batch.cond)
    expected = method.teacher.weighting(noise[0][1]) * (mu - samples).square().mean(1)
    torch.testing.assert_close(output.terms["denoise"], expected)
    fake, real = (D(x_t, t, batch.cond)[1] for x_t, t in noise[1:])
    torch.testing.assert_close(output.terms["disc"], F.softplus(fake) + F.softplus(-real))


class Recorder(nn.Module):
    """A generator that notes at which times it is asked, and whether gradients are on."""

    def __init__(self, generator: nn.Module):
        super().__init__()
        self.generator, self.calls = generator, []

    def forward(self, x: Tensor, cond: None = None, t: Tensor | None = None) -> Tensor:
        self.calls.append((t, torch.is_grad_enabled()))
        return self.generator(x, cond, t)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_backward_simulation_is_sampling_stopped_at_a_step(depth: int) -> None:
    process, teacher = PROCESSES[0], made_of().teacher
    steps = StepSchedule((4.0, 1.0, 0.3))
    generator = Recorder(Generator(teacher.trainable_copy(), process, 8.0, steps))
    start = partial(first_level, process, 8.0)
    z = torch.randn(20, 2)
    found = backward_simulation(generator, start, process, steps, z, None, FixedRandom(1), depth)
    assert [grad for _, grad in generator.calls] == [False] * depth + [True]

    rng, (x, t) = FixedRandom(1), start(z)
    expected = teacher(x, t)
    for level in steps.later_times[:depth]:
        t = torch.full((20,), level)
        expected = teacher(noised(process, expected, t, rng.normal(20, 2)), t)
    torch.testing.assert_close(found, expected)
    assert torch.equal(generator.calls[-1][0], torch.full((20,), (8.0, 4.0, 1.0, 0.3)[depth]))


def test_the_steps_learn_in_turns_and_each_in_a_row() -> None:
    method = make(num_steps=3, step_held_for=4, lambda_gan=0)
    depths = [{phase.denoising_step for phase in method.phases(step)} for step in range(16)]
    assert depths == [{0}] * 4 + [{1}] * 4 + [{2}] * 4 + [{0}] * 4
    phase, batch = method.phases(9)[3], full_batch()
    rng = FixedRandom(2)
    x = method.generate(2, batch, rng)
    t, x_t = sample_noised(method.process, x, rng)
    expected = method.teacher.weighting(t) * (method.fake_score(x_t, t, batch.cond) - x).square().mean(1)
    torch.testing.assert_close(phase.loss(batch, FixedRandom(2)).terms["denoise"], expected)


def test_the_watch_sees_samples_of_all_steps() -> None:
    method, batch = make(num_steps=3, lambda_gan=0), full_batch()
    found, rng = method.monitor_samples(batch, FixedRandom(2)), FixedRandom(2)
    z = rng.normal(ROWS, 2)
    expected = method.generator.sample_with_noise(z, batch.cond, lambda step: rng.normal(ROWS, 2))  # type: ignore[operator]
    assert found is not None and not found.requires_grad
    torch.testing.assert_close(found, expected)
    assert make().monitor_samples(batch, FixedRandom(2)) is None  # one step: the phases' samples are final


def test_only_the_encoder_and_head_hear_the_discriminator() -> None:
    method = lively(make())
    phase = method.phases(0)[1]
    only(method, phase)
    phase.loss(full_batch(), FixedRandom()).terms["disc"].sum().backward()
    network = method.fake_score.denoiser.model  # type: ignore[union-attr]
    assert network.head.weight.grad is None or not network.head.weight.grad.any()  # type: ignore[union-attr]
    assert network.stem.weight.grad.any()  # type: ignore[union-attr]
