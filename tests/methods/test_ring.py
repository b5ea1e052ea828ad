"""Distribution matching alone, from exact scores: a Gaussian is matched, the ring covered, alarms ring."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import unistep.methods.dmd
from unistep.api import distill
from unistep.losses.distribution_matching import distribution_matching_gradient, distribution_matching_loss
from unistep.process import EDMProcess


def posterior_mean(x_t: Tensor, sigma: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """E[x_0 | x_t] of N(mean, std^2) at alpha = 1."""
    return mean + std**2 / (std**2 + sigma[:, None] ** 2) * (x_t - mean)


@pytest.mark.parametrize("weighting", ["eq8", "sigma_over_alpha"])
def test_an_affine_generator_becomes_the_teachers_gaussian(weighting: str) -> None:
    torch.manual_seed(0)
    process, mean, std = EDMProcess(0.02, 10.0), torch.tensor([0.5, -1.0]), torch.tensor([0.3, 1.2])
    scale, shift = torch.ones(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    adam = torch.optim.Adam([scale, shift], lr=0.02, betas=(0.5, 0.99))
    for step in range(600):
        x = scale * torch.randn(256, 2) + shift
        sigma = process.time(torch.randint(20, 981, (256,)) / 999)
        x_t = (x + sigma[:, None] * torch.randn_like(x)).detach()
        mu_base = posterior_mean(x_t, sigma, mean, std)
        mu_fake = posterior_mean(x_t, sigma, shift.detach(), scale.detach())
        g = distribution_matching_gradient(x, mu_base, mu_fake, torch.ones(256), sigma, weighting)  # type: ignore[arg-type]
        adam.param_groups[0]["lr"] = 0.02 * (1 - step / 600)
        adam.zero_grad()
        distribution_matching_loss(x, g).mean().backward()
        adam.step()
    torch.testing.assert_close(shift.detach(), mean, atol=0.03, rtol=0)
    torch.testing.assert_close(scale.detach().abs(), std, atol=0.03, rtol=0.03)


class Outcome(NamedTuple):
    """What a run says of itself."""

    modes: float
    energy: float
    alarms: set[str]


def ring(folder: Path, *overrides: str) -> Outcome:
    """The recipe `gaussians`: its generator's figures and the alarms that rang."""
    run = distill("gaussians", out=folder / "run", overrides=overrides, quiet=True)
    rows = json.loads((run / "evaluation.json").read_text())["rows"]
    found = next(row["figures"] for row in rows if row["role"] == "student")
    alarms = json.loads((run / "health.json").read_text())["alarms"]
    return Outcome(found["modes"], found["energy"], {alarm["name"] for alarm in alarms})


SHORT = ("training.steps=1500",)


@pytest.mark.slow
def test_every_mode_is_covered_and_no_alarm_rings(tmp_path: Path) -> None:
    outcome = ring(tmp_path)
    assert outcome.modes == 8
    assert outcome.energy < 0.03
    assert outcome.alarms == set()


@pytest.mark.slow
def test_a_sign_error_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = distribution_matching_gradient
    monkeypatch.setattr(unistep.methods.dmd, "distribution_matching_gradient", lambda *a: -right(*a))
    outcome = ring(tmp_path, *SHORT)
    assert outcome.energy > 0.03
    assert outcome.alarms


@pytest.mark.slow
def test_a_fake_score_that_never_learns_is_seen_and_rings(tmp_path: Path) -> None:
    outcome = ring(tmp_path, "method.fake_score_updates_per_step=0", *SHORT)
    assert outcome.energy > 0.03 or outcome.modes < 8
    assert "fake_score_lag" in outcome.alarms or "diversity_collapse" in outcome.alarms


@pytest.mark.slow
def test_too_high_a_learning_rate_rings(tmp_path: Path) -> None:
    rate = "training.optim.generator={lr: 0.1, betas: [0.5, 0.999], schedule: cosine, warmup: 50}"
    assert ring(tmp_path, rate, *SHORT).alarms & {"sample_drift", "gradient_explosion", "fake_score_lag"}
