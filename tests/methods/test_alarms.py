"""Runs that are broken on purpose ring the alarm that names what is broken; runs in order are silent."""

import shutil
from pathlib import Path

import pytest
from outcome import Outcome, outcome

import unistep.methods.dmd
from unistep.api import distill
from unistep.losses.distribution_matching import distribution_matching_gradient

pytestmark = pytest.mark.slow

SMALL = (
    "fit.network={type: mlp, dim: 2, width: 64, num_blocks: 2}", "fit.samples=8192", "fit.max_error=1",
    "fit.training={steps: 400, batch: 256, optim: {default: {lr: 2e-3, schedule: cosine, warmup: 20}}, "
    "ema: {half_life: 30}}",
    "training.steps=400", "training.batch=128", "training.log_every=5", "training.ema.half_life=30",
    "training.preview_every=null", "training.device=cpu", "evaluation.samples=1000",
    "evaluation.samples_during_training=200", "evaluation.solver={name: heun, num_steps: 10}",
)  # fmt: skip
PAIRS = ("method.lambda_reg=1", "pairs.count=2000", "pairs.tile=500", "pairs.solver={name: heun, num_steps: 10}")
LOW_LEVELS = ("method.max_fraction=0.3",)  # sigma up to 0.3, where a score knows no mode but the nearest


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe `gaussians`, distribution matching alone, with fewer numbers."""
    return distill("gaussians", out=tmp_path_factory.mktemp("good") / "run", overrides=SMALL, quiet=True)


def changed(good: Path, folder: Path, *overrides: str) -> Outcome:
    """The same run with other settings, from the same fitted network."""
    shutil.copytree(good / "teacher", folder / "run" / "teacher")
    shutil.copy(good / "recipe.yaml", folder / "run" / "recipe.yaml")
    return outcome(distill("gaussians", out=folder / "run", overrides=(*SMALL, *overrides), quiet=True))


def test_a_good_run_is_silent(good: Path) -> None:
    found = outcome(good)
    assert (found.modes, found.alarms) == (8, [])


def test_a_fake_score_that_never_learns_is_said_to_lag_before_anything_else(good: Path, tmp_path: Path) -> None:
    # The fitted network is the teacher, so that the fake score, which starts as its copy, stays its equal.
    never = (f"teacher={{load: {good / 'teacher' / 'teacher'}}}", "method.fake_score_updates_per_step=0")
    assert changed(good, tmp_path, *never).alarms[0] == "fake_score_lag"


def test_a_learning_rate_far_too_high_makes_samples_drift(good: Path, tmp_path: Path) -> None:
    rate = "training.optim.generator={lr: 0.1, betas: [0.5, 0.999], schedule: cosine, warmup: 50}"
    found = changed(good, tmp_path, rate)
    # Gradients stay as they were, for Eq. 8 bounds them. What has left the teacher's brightness is narrow, too: both
    # alarms ring with the first reading after the grace.
    assert set(found.alarms[:2]) == {"sample_drift", "diversity_collapse"}
    assert found.energy is not None and found.energy > 0.1


def test_distribution_matching_alone_collapses_at_low_noise_and_regression_is_the_remedy(
    good: Path, tmp_path: Path
) -> None:
    alone = changed(good, tmp_path / "alone", *LOW_LEVELS)
    assert "diversity_collapse" in alone.alarms and "fake_score_lag" not in alone.alarms
    assert alone.modes is not None and alone.modes <= 2  # all samples at the mode that was nearest
    assert alone.energy is not None and alone.energy > 0.5
    both = changed(good, tmp_path / "both", *LOW_LEVELS, *PAIRS)
    assert (both.modes, both.alarms) == (8, [])


def test_steps_that_learn_by_turns_of_one_make_up_for_each_other_and_held_they_do_not(
    good: Path, tmp_path: Path
) -> None:
    """What the phases made covers all modes together either way, so only the figures tell, not always an alarm."""
    four = ("method={name: dmd2, num_steps: 4, lambda_gan: 0}", "training.steps=600")
    alone = changed(good, tmp_path / "alone", *four, "method.step_held_for=1")
    held = changed(good, tmp_path / "held", *four)
    assert (held.modes, held.alarms) == (8, [])
    assert alone.energy is not None and held.energy is not None and alone.energy > 2 * held.energy


def test_a_weight_far_too_large_explodes_the_gradient_when_its_term_is_switched_on(good: Path, tmp_path: Path) -> None:
    jump = ("method.lambda_dm=1e4", "method.fake_score_from_step=100", "method.dm_from_step=200")
    assert changed(good, tmp_path, *PAIRS, *jump).alarms == ["gradient_explosion"]


def test_a_sign_error_makes_samples_drift(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = distribution_matching_gradient
    monkeypatch.setattr(unistep.methods.dmd, "distribution_matching_gradient", lambda *a: -right(*a))
    found = changed(good, tmp_path)
    assert "sample_drift" in found.alarms[:2]
    assert found.energy is not None and found.energy > 0.5
