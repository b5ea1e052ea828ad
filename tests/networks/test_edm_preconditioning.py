"""Preconditionings VP, VE and iDDPM: the paper's formulas in closed form, their ranges, rounding and configuration."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from unistep.diffusion.process import EDMProcess, FlowProcess
from unistep.errors import UserError
from unistep.networks import EDMDenoiser, build_denoiser
from unistep.networks.edm_preconditioning import IDDPMDenoiser, LevelDenoiser, VEDenoiser, VPDenoiser

TYPES = (VPDenoiser, VEDenoiser, IDDPMDenoiser)
WITHIN = EDMProcess(sigma_min=0.02, sigma_max=80.0)
prop = settings(max_examples=20, deadline=None)
LEVELS = st.floats(min_value=0.02, max_value=80.0)
POINTS = {"network": {"type": "mlp"}, "process": {"type": "edm", "sigma_min": 0.02, "sigma_max": 80.0}}


class Constant(nn.Module):
    """Answers the same whatever it is asked."""

    def __init__(self, answer: Tensor | None = None):
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        return torch.zeros_like(x) if self.answer is None else self.answer


def coefficients(kind: type[LevelDenoiser], sigma: float) -> list[float]:
    return [c.item() for c in kind(Constant(), WITHIN).coefficients(torch.tensor([sigma]))]


@prop
@given(LEVELS)
def test_vp_column_of_table_1(sigma: float) -> None:
    c_skip, c_out, c_in, c_noise = coefficients(VPDenoiser, sigma)
    t = (math.sqrt(0.1**2 + 2 * 19.9 * math.log(1 + sigma**2)) - 0.1) / 19.9
    assert (c_skip, c_out) == (1, pytest.approx(-sigma))
    assert c_in == pytest.approx(1 / math.sqrt(sigma**2 + 1))
    assert c_noise == pytest.approx(999 * t, rel=1e-5)


@prop
@given(LEVELS)
def test_ve_column_of_table_1(sigma: float) -> None:
    assert coefficients(VEDenoiser, sigma) == [1, pytest.approx(sigma), 1, pytest.approx(math.log(sigma / 2), abs=1e-6)]


@prop
@given(LEVELS)
def test_iddpm_column_of_table_1(sigma: float) -> None:
    c_skip, c_out, c_in, c_noise = coefficients(IDDPMDenoiser, sigma)
    distances = (IDDPMDenoiser(Constant(), WITHIN).u.double() - torch.tensor([sigma]).double()).abs().tolist()
    assert (c_skip, c_out) == (1, pytest.approx(-sigma))
    assert c_in == pytest.approx(1 / math.sqrt(sigma**2 + 1))
    assert c_noise == 999 - distances.index(min(distances))


@prop
@given(LEVELS)
def test_edm_column_of_table_1(sigma: float) -> None:
    found = EDMDenoiser(Constant(), EDMProcess()).coefficients(torch.tensor([sigma]))
    total = sigma**2 + 0.25
    wanted = [0.25 / total, sigma / 2 / math.sqrt(total), 1 / math.sqrt(total), math.log(sigma) / 4]
    assert [c.item() for c in found] == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def test_edm_at_the_ends_copies_or_ignores_its_input() -> None:
    denoiser = EDMDenoiser(Constant(), EDMProcess())
    c_skip, c_out, _, _ = denoiser.coefficients(torch.tensor([0.0, 1e6]))
    assert c_skip.tolist() == [1, pytest.approx(0, abs=1e-9)]
    assert c_out.tolist() == [0, pytest.approx(0.5)]
    assert (denoiser.sigma_min, denoiser.sigma_max) == (0, math.inf)
    sigma = torch.tensor([0.123])
    assert torch.equal(denoiser.round_sigma(sigma), sigma)


@pytest.mark.parametrize("kind", TYPES)
def test_a_network_that_knows_the_noise_gives_the_clean_sample(kind: type[LevelDenoiser]) -> None:
    torch.manual_seed(0)
    x_0, eps, sigma = torch.randn(3, 2), torch.randn(3, 2), torch.tensor([0.05, 1.0, 40.0])
    denoiser = kind(Constant(-eps if kind is VEDenoiser else eps), WITHIN)
    torch.testing.assert_close(denoiser(x_0 + sigma[:, None] * eps, sigma), x_0, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(denoiser.weighting(sigma), 1 / sigma**2)


def test_vp_levels_are_those_of_its_times() -> None:
    denoiser = VPDenoiser(Constant(), EDMProcess())
    assert denoiser.sigma_min == pytest.approx(math.sqrt(math.exp(19.9 * 1e-10 / 2 + 0.1 * 1e-5) - 1), rel=1e-6)
    assert denoiser.sigma_max == pytest.approx(152.167, rel=1e-5)
    assert denoiser.sigma_of(1e-3) == pytest.approx(0.0105, abs=5e-5)
    for t in (1e-5, 1e-3, 0.5, 1.0):
        back = denoiser.time_of(torch.tensor([denoiser.sigma_of(t)], dtype=torch.float64))
        assert back.item() == pytest.approx(t, rel=1e-6)


def test_iddpm_levels_are_those_of_the_papers_recursion() -> None:
    denoiser = IDDPMDenoiser(Constant(), WITHIN)
    u = denoiser.u.double()
    assert u.shape == (1001,)
    assert bool((u.diff() < 0).all())
    assert u[-1] == 0
    assert u[8].item() == pytest.approx(80, abs=0.3)  # where EDM starts to sample such networks
    # away from the clipped end the levels are the cosine schedule's own noise-to-signal ratios
    end = math.sin(math.pi / 2 / 1.008) ** 2
    for j in (100, 500, 900):
        alpha_bar = math.sin(math.pi / 2 * j / 1008) ** 2 / end
        assert u[j].item() == pytest.approx(math.sqrt(1 / alpha_bar - 1), rel=1e-4)
    assert (denoiser.sigma_min, denoiser.sigma_max) == pytest.approx((u[999].item(), u[0].item()))


@prop
@given(LEVELS)
def test_iddpm_rounds_to_the_nearest_level_and_stays_there(sigma: float) -> None:
    denoiser = IDDPMDenoiser(Constant(), WITHIN)
    rounded = denoiser.round_sigma(torch.tensor([sigma]))
    assert (denoiser.u == rounded).any()
    assert (denoiser.u - sigma).abs().min().item() == pytest.approx((rounded - sigma).abs().item(), abs=1e-6)
    assert torch.equal(denoiser.round_sigma(rounded), rounded)


def test_iddpms_variances_are_not_used() -> None:
    x, sigma = torch.randn(2, 3, 4, 4), torch.tensor([0.1, 1.0])
    twice = torch.cat([torch.ones(2, 3, 4, 4), torch.full((2, 3, 4, 4), 7.0)], dim=1)
    denoised = IDDPMDenoiser(Constant(twice), WITHIN)(x, sigma)
    torch.testing.assert_close(denoised, x - sigma[:, None, None, None])


@pytest.mark.parametrize(
    ("preconditioning", "kind"),
    [(None, EDMDenoiser), ({"type": "edm"}, EDMDenoiser), ({"type": "vp", "beta_d": 18.0}, VPDenoiser),
     ({"type": "ve", "sigma_max": 90.0}, VEDenoiser), ({"type": "iddpm", "M": 500}, IDDPMDenoiser)],
)  # fmt: skip
def test_configuration_chooses_the_preconditioning(preconditioning: dict[str, Any] | None, kind: type) -> None:
    config = POINTS | ({} if preconditioning is None else {"preconditioning": preconditioning})
    denoiser = build_denoiser(config)
    assert type(denoiser) is kind
    assert denoiser(torch.randn(2, 2), torch.tensor([0.1, 1.0])).shape == (2, 2)
    for option, value in (preconditioning or {}).items():
        assert option == "type" or getattr(denoiser, option) == value


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"preconditioning": {"type": "vq"}}, "preconditioning.type: found 'vq', expected one of edm, vp, ve, iddpm"),
     ({"preconditioning": {"type": "edm", "beta_d": 1.0}}, "preconditioning.beta_d: unknown key; expected"),
     ({"preconditioning": {"type": "vp", "beta_D": 1.0}}, "unknown key; did you mean beta_d?"),
     ({"preconditioning": {"type": "vp", "beta_d": "1"}}, "preconditioning.beta_d: found '1', expected a number"),
     ({"preconditioning": {"type": "vp"}, "process": FlowProcess().config()}, "process.type: found 'flow'"),
     ({"preconditioning": {"type": "vp"}, "sigma_data": 0.7}, "sigma_data: found 0.7, expected none"),
     ({"preconditioning": {"type": "ve"}, "process": {"type": "edm"}}, "expected levels from 0.02 to 100")],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        build_denoiser(POINTS | changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
