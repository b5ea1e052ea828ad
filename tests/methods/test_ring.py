"""Distribution matching alone, from exact scores: a Gaussian is matched, the ring covered."""

from pathlib import Path

import pytest
import torch
from outcome import outcome
from torch import Tensor

from unistep.api import distill
from unistep.diffusion.process import EDMProcess
from unistep.losses.distribution_matching import distribution_matching_gradient, distribution_matching_loss


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


@pytest.mark.slow
def test_every_mode_is_covered_and_no_alarm_rings(tmp_path: Path) -> None:
    found = outcome(distill("gaussians", out=tmp_path / "run", quiet=True))
    assert (found.modes, found.alarms) == (8, [])
    assert found.energy is not None and found.energy < 0.03
