"""Each alarm rings on a series made for it, once, and clears; a good run is silent."""

import json
import math
import random
from dataclasses import replace

import pytest
import torch

from unistep.training import HealthConfig, HealthMonitor, SampleStatistics, sample_statistics
from unistep.training.health import Alarm, Observation

TEACHER = SampleStatistics(mean=-0.2, std=0.6)
STEPS = 500


def good(step: int, noise: random.Random) -> Observation:
    """A run that learns: losses fall and scatter, samples start blurred and meet the teacher's."""
    blur = max(0.0, 1 - step / 80)
    teacher_loss = (0.3 + blur) * noise.lognormvariate(0, 0.3)
    return Observation(
        step=step,
        fake_loss=0.95 * teacher_loss * noise.lognormvariate(0, 0.05),  # on the same noised samples
        teacher_loss=teacher_loss,
        samples=SampleStatistics(
            mean=-0.2 + noise.gauss(0, 0.02),
            std=0.6 * (1 - 0.5 * blur) * noise.lognormvariate(0, 0.03),
            diversity=(1 - 0.6 * blur) * noise.lognormvariate(0, 0.03),
        ),
        grad_norms={"generator": noise.lognormvariate(0, 0.5), "fake_score": 3 * noise.lognormvariate(0, 0.5)},
    )


def watch(change, begin: int = 250, end: int = STEPS + 1) -> tuple[HealthMonitor, list[Alarm]]:  # type: ignore[no-untyped-def]
    """A good run whose readings between two steps are changed."""
    noise, monitor = random.Random(0), HealthMonitor(TEACHER, STEPS)
    rung: list[Alarm] = []
    for step in range(5, STEPS + 1, 5):
        reading = good(step, noise)
        rung += monitor.observe(change(reading) if begin <= step < end else reading)
    return monitor, rung


def samples(reading: Observation, **changes: float) -> Observation:
    assert reading.samples is not None
    return replace(reading, samples=replace(reading.samples, **changes))


def lagging(r: Observation) -> Observation:
    return replace(r, fake_loss=2 * r.teacher_loss)  # type: ignore[operator]


def rising(r: Observation) -> Observation:
    return replace(r, fake_loss=4 * r.fake_loss if r.step > 300 else r.fake_loss, teacher_loss=None)


def frozen(r: Observation) -> Observation:
    return replace(r, fake_loss=r.teacher_loss)


CASES = [
    (lagging, "fake_score_lag", "2.00 times worse than the teacher: it lags"),
    (rising, "fake_score_lag", "it lags behind"),
    (frozen, "fake_score_lag", "equals the teacher: it is not learning"),
    (lambda r: samples(r, mean=0.3), "sample_drift", "samples are brighter than the teacher's"),
    (lambda r: samples(r, mean=-0.5), "sample_drift", "samples are darker than the teacher's"),
    (lambda r: samples(r, std=0.3), "sample_drift", "samples have weaker contrast"),
    (lambda r: samples(r, std=1.1), "sample_drift", "samples have stronger contrast"),
    (lambda r: samples(r, diversity=0.4), "diversity_collapse", "mean distance is 40 % of the teacher's"),
]


def test_a_good_run_is_silent() -> None:
    for seed in range(5):
        noise, monitor = random.Random(seed), HealthMonitor(TEACHER, STEPS)
        for step in range(5, STEPS + 1, 5):
            assert monitor.observe(good(step, noise)) == []


def test_a_good_run_without_the_teachers_loss_is_silent() -> None:
    noise, monitor = random.Random(0), HealthMonitor(TEACHER, STEPS)
    for step in range(5, STEPS + 1, 5):
        assert monitor.observe(replace(good(step, noise), teacher_loss=None)) == []


@pytest.mark.parametrize(("change", "name", "words"), CASES)
def test_alarms_ring_once(change, name: str, words: str) -> None:  # type: ignore[no-untyped-def]
    monitor, rung = watch(change)
    assert [alarm.name for alarm in rung] == [name]
    assert words in rung[0].words and "; " in rung[0].words
    assert 250 <= rung[0].step <= 340
    assert monitor.ringing == (set() if change is rising else {name})  # the new level becomes the trend


def test_alarms_clear_and_ring_again() -> None:
    noise, monitor, rung = random.Random(0), HealthMonitor(TEACHER, STEPS), []
    for step in range(5, STEPS + 1, 5):
        reading = good(step, noise)
        bad = 150 <= step < 250 or 350 <= step < 450
        rung += monitor.observe(samples(reading, diversity=0.2) if bad else reading)
    assert [alarm.name for alarm in rung] == ["diversity_collapse"] * 2
    assert monitor.ringing == set()


def test_exploding_gradient() -> None:
    _, rung = watch(lambda r: replace(r, grad_norms={"generator": 500.0}), 300, 305)
    assert [(a.step, a.name) for a in rung] == [(300, "gradient_explosion")]
    assert "the gradient of generator is" in rung[0].words


def test_one_odd_gradient_is_no_explosion_and_two_near_each_other_are() -> None:
    """Of distribution matching on points one gradient in a thousand steps is 20 to 60 times the others."""
    _, once = watch(lambda r: replace(r, grad_norms={"generator": 50.0}), 300, 305)
    assert not once
    _, twice = watch(lambda r: replace(r, grad_norms={"generator": 50.0}) if r.step != 305 else r, 300, 315)
    assert [a.name for a in twice] == ["gradient_explosion"]


def test_a_reading_without_values_neither_starts_nor_clears() -> None:
    monitor, _ = watch(lambda r: samples(lagging(r), diversity=0.1, mean=3.0))
    before = set(monitor.ringing)
    assert monitor.observe(Observation(step=STEPS + 5)) == []
    assert monitor.ringing == before == {"diversity_collapse", "sample_drift", "fake_score_lag"}


def test_nothing_to_compare_with() -> None:
    monitor = HealthMonitor(None, 0, HealthConfig(window=1))
    assert monitor.observe(Observation(step=1, samples=SampleStatistics(mean=9.0, std=9.0))) == []
    assert monitor.report()["reference"] is None


def test_state_goes_through_json() -> None:
    noise, whole, halves = random.Random(1), HealthMonitor(TEACHER, STEPS), HealthMonitor(TEACHER, STEPS)
    rung: tuple[list[Alarm], list[Alarm]] = [], []
    for step in range(5, STEPS + 1, 5):
        reading = samples(good(step, noise), diversity=0.3) if step > 200 else good(step, noise)
        rung[0].extend(whole.observe(reading))
        halves_state = json.loads(json.dumps(halves.state()))
        halves = HealthMonitor(TEACHER, STEPS)
        halves.restore(halves_state)
        rung[1].extend(halves.observe(reading))
    assert rung[0] == rung[1] and len(rung[0]) == 1
    assert whole.report() == halves.report()


def test_statistics_of_samples() -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])
    found = sample_statistics(x)
    assert found.mean == pytest.approx(7 / 6)
    assert found.std == pytest.approx(float(x.std()))
    assert math.isnan(found.diversity)
