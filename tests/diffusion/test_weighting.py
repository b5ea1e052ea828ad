import pytest
import torch

from unistep.diffusion.prediction import from_x0
from unistep.diffusion.process import DiscreteVPProcess, EDMProcess, FlowProcess
from unistep.diffusion.weighting import require_weight, training_weight, training_weighting
from unistep.errors import UserError
from unistep.networks import EDMDenoiser

KINDS = ("x0", "eps", "v", "velocity", "score", "F")
TABLE = DiscreteVPProcess.scaled_linear()
ZERO_SNR = DiscreteVPProcess.zero_terminal_snr(TABLE)
GRID = torch.tensor([0.0, 0.3, 0.7, 0.999], dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_plain_error_of_the_prediction(process, kind):
    """weight |x_0 - x_0'|^2 = |p - p'|^2."""
    t = process.time(GRID)
    x_t, a, b = torch.randn(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    error = (from_x0(a, x_t, t, kind, process, 0.7) - from_x0(b, x_t, t, kind, process, 0.7)).square().sum(1)
    weight = training_weight(kind, process, t, 0.7)
    assert weight.dtype == t.dtype
    torch.testing.assert_close(weight * (a - b).square().sum(1), error, rtol=1e-6, atol=0)


def by_hand(kind, abar, slope):
    """The weights on a variance-preserving table, at alpha-bar [b] with the angle's slope d phi / dt [b]."""
    return {
        "x0": torch.ones_like(abar),
        "eps": abar / (1 - abar),
        "v": 1 / (1 - abar),
        "velocity": slope**2 / (1 - abar),  # alpha = cos phi, sigma = sin phi
        "score": abar / (1 - abar) ** 2,
        "F": (abar / 4 + (1 - abar)) / (1 - abar) * 4,
    }[kind]


@pytest.mark.parametrize("process", [TABLE, ZERO_SNR], ids=["plain table", "zero terminal SNR"])
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_table(process, kind):
    t = torch.tensor([1.0, 500.0, 998.0, 999.0])
    expected = by_hand(kind, process.alphas_cumprod[t.long()], process.angle(t)[1])
    found = training_weight(kind, process, t)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_all_but_noise_can_be_learnt_without_signal_at_the_end(kind):
    if kind in ("eps", "score"):
        with pytest.raises(UserError, match=f"prediction: found {kind} with weight 0 at t = 999, expected a positive"):
            require_weight(kind, ZERO_SNR)
    else:
        assert float(training_weighting(kind, ZERO_SNR)(torch.tensor([999.0]))) > 0
    require_weight(kind, TABLE)


@pytest.mark.parametrize("kind", KINDS)
def test_every_grid_with_signal_can_be_learnt(signal_process, kind):
    require_weight(kind, signal_process)


def test_it_gives_the_usual_ones():
    sigma, t = torch.tensor([0.002, 0.5, 80.0]), torch.tensor([0.001, 0.5, 1.0])
    torch.testing.assert_close(training_weight("F", EDMProcess(), sigma), 1 / sigma**2 + 4)
    torch.testing.assert_close(training_weight("eps", EDMProcess(), sigma), 1 / sigma**2)
    torch.testing.assert_close(training_weight("velocity", FlowProcess(shift=3.0), t), 1 / t**2)


def test_edm_s_lambda_is_that_of_its_preconditioning(process):
    """lambda = 1 / c_out^2."""
    denoiser = EDMDenoiser(torch.nn.Identity(), process, sigma_data=0.7)
    t = process.time(GRID)
    torch.testing.assert_close(denoiser.weighting(t).float(), denoiser.coefficients(t)[1] ** -2)


def test_a_grid_that_reaches_the_data_is_refused():
    class WithData(FlowProcess):
        def time(self, u):
            return u

    with pytest.raises(UserError, match="found velocity with weight inf at t = 0"):
        require_weight("velocity", WithData())
    require_weight("x0", WithData())
