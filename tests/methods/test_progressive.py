"""Progressive distillation: a halved step is two of the teacher's, round after round."""

import pytest
import torch
from fixed_random import FixedRandom
from small import PROCESSES, full_batch, made_of, names
from torch import Tensor, nn

from unistep.diffusion.process import EDMProcess
from unistep.diffusion.process.base import NoiseProcess
from unistep.diffusion.process.noising import data_time, noised
from unistep.diffusion.samplers.batched_steps import euler_rows
from unistep.methods.progressive import Progressive, ProgressiveConfig, ddim_target
from unistep.networks.generator import Generator, StepSchedule
from unistep.teachers.analytic import GaussianMixture


def make(process: NoiseProcess = PROCESSES[0], steps: int = 40, **settings: int) -> Progressive:
    return ProgressiveConfig(name="progressive", **settings).build(made_of(process, steps=steps))  # type: ignore[arg-type]


@pytest.mark.parametrize("places", [(1.0, 0.75, 0.5), (0.6, 0.4, 0.2), (0.2, 0.1, None)])
@pytest.mark.parametrize("process", PROCESSES, ids=names)
def test_one_step_of_the_student_is_two_of_the_teacher(process: NoiseProcess, places: tuple[float | None, ...]) -> None:
    teacher = GaussianMixture(torch.tensor([[1.0, 0.0], [-1.0, 0.5]]), 0.3, process)
    t, half, s = (
        torch.full((50,), data_time(process) if u is None else float(process.time(torch.tensor(u)))).double()
        for u in places
    )
    x_t = noised(process, teacher.sample(torch.arange(50)).double(), t, torch.randn(50, 2).double())
    x_half = euler_rows(process, x_t, teacher(x_t, t), t, half)
    two = euler_rows(process, x_half, teacher(x_half, half), half, s)
    answer = ddim_target(teacher, process, x_t, (t, half, s), None)
    torch.testing.assert_close(euler_rows(process, x_t, answer, t, s), two)
    if places[-1] is None:
        torch.testing.assert_close(answer, teacher(x_half, half))  # at data: the teacher's own answer


@pytest.mark.parametrize("steps", [512, 8192])
def test_the_answer_of_short_steps_does_not_cancel(steps: int) -> None:
    """At the noisy end of EDM's grid x~ in float32 is that in float64, up to what the teacher rounds."""
    process = EDMProcess()
    times = tuple(process.time(torch.full((20,), 1 - i / steps)) for i in (0, 0.5, 1))
    x_t = 80 * torch.randn(20, 2, generator=torch.Generator().manual_seed(0))

    def teacher(x: Tensor, t: Tensor, cond: None) -> Tensor:
        return x / (1 + t[:, None].square()) + 0.3  # of data N(0.3, 1), as good as

    found = ddim_target(teacher, process, x_t, times, None)  # type: ignore[arg-type]
    exact = ddim_target(teacher, process, x_t.double(), tuple(t.double() for t in times), None)  # type: ignore[arg-type]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("process", PROCESSES, ids=names)
def test_a_student_without_error_samples_as_its_teacher_does(process: NoiseProcess) -> None:
    teacher = GaussianMixture(torch.tensor([[1.0, 0.0], [-1.0, 0.5]]), 0.3, process)
    times = [float(process.time(torch.tensor(u, dtype=torch.float64))) for u in (1, 0.75, 0.5, 0.25)]
    next_two = dict(zip(times[::2], ((times[1], times[2]), (times[3], data_time(process))), strict=True))

    class Student(nn.Module):
        def forward(self, x: Tensor, t: Tensor, cond: None) -> Tensor:
            half, s = (torch.full_like(t, time) for time in next_two[min(next_two, key=lambda a: abs(a - float(t[0])))])
            return ddim_target(teacher, process, x, (t, half, s), cond)

    z = torch.randn(30, 2).double()
    four = Generator(teacher, process, None, StepSchedule(tuple(times[1:]), "ode")).sample(z)
    two = Generator(Student(), process, None, StepSchedule((times[2],), "ode")).sample(z)
    torch.testing.assert_close(two, four, rtol=1e-3, atol=1e-3)


def test_rounds_and_their_beginnings() -> None:
    config = ProgressiveConfig(name="progressive", start_steps=32, long_rounds=2)
    assert config.beginnings(700) == (0, 100, 200, 300, 500, 700)
    method = make(steps=700, start_steps=32, long_rounds=2)
    assert method.milestones() == {"generator": (100, 200, 300, 500)}
    assert [method.round(step) for step in (0, 99, 100, 299, 300, 499, 500, 699)] == [0, 0, 1, 2, 3, 3, 4, 4]


@pytest.mark.parametrize("process", PROCESSES, ids=names)
def test_the_steps_of_a_round_lie_one_after_the_other(process: NoiseProcess) -> None:
    method = make(process, start_steps=8)
    for step, N in ((0, 4), (20, 2), (39, 1)):
        t, half, s = method.sample_step(torch.zeros(300, 2), FixedRandom(), step)
        places = {float(a): (float(b), float(c)) for a, b, c in zip(t, half, s, strict=True)}
        assert len(places) == N
        assert max(places) == float(process.time(torch.ones(1)))
        assert {c for _, c in places.values()} - {data_time(process)} == set(places) - {max(places)}
        assert all(a > b > c for a, (b, c) in places.items())


def test_the_student_of_a_round_teaches_the_next() -> None:
    method = make(steps=9, start_steps=8)  # rounds begin at 0, 3, 6
    x, t = torch.randn(4, 2), torch.ones(4)
    assert torch.equal(method.teacher(2)(x, t, None), method.mu_base(x, t, None))
    for step in range(9):
        with torch.no_grad():
            for p in method.generator.parameters():
                p.add_(0.01)
        method.after_step(step)
        now = method.generator(x, None, t)
        assert torch.equal(method.previous(x, None, t), now) == (step in (2, 5))
    assert torch.equal(method.teacher(3)(x, t, None), method.previous(x, None, t))


def test_the_weight_is_the_truncated_snr() -> None:
    method = make(PROCESSES[3], start_steps=4)
    (phase,) = method.phases(0)
    found = phase.loss(full_batch(), FixedRandom(1)).terms["halving"]
    batch, rng = full_batch(), FixedRandom(1)
    assert batch.real is not None
    t, half, s = method.sample_step(batch.real, rng, 0)
    x_t = noised(method.process, batch.real, t, rng.normal(*batch.real.shape))
    goal = ddim_target(method.teacher(0), method.process, x_t, (t, half, s), None)
    error = (method.generator(x_t, None, t) - goal).square().mean(1)
    torch.testing.assert_close(found, ((1 - t) / t).square().clamp_min(1) * error)
