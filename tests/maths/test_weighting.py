import pytest
import torch

from unistep.errors import UserError
from unistep.prediction import from_x0
from unistep.process import DiscreteVPProcess
from unistep.weighting import default_weighting


def test_it_is_the_plain_error_of_the_family_s_own_prediction(process):
    """weight |x_0 - x_0'|^2 = |p - p'|^2."""
    t = process.time(torch.tensor([0.0, 0.3, 0.7, 0.999], dtype=torch.float64))
    ends_without_signal = float(process.alpha(process.time(torch.ones(1, dtype=torch.float64)))) == 0
    kind = {"edm": "F", "flow": "velocity"}.get(process.config()["type"], "v" if ends_without_signal else "eps")
    x_t, a, b = torch.randn(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    error = (from_x0(a, x_t, t, kind, process) - from_x0(b, x_t, t, kind, process)).square().sum(1)
    weight = default_weighting(process)(t)
    torch.testing.assert_close(weight * (a - b).square().sum(1), error, rtol=1e-5, atol=0)


def test_zero_terminal_snr_still_weighs_its_last_timestep():
    process = DiscreteVPProcess.zero_terminal_snr(DiscreteVPProcess.linear())
    assert default_weighting(process)(torch.tensor([999.0])) == 1


def test_unknown_family_is_refused():
    class Other:
        def config(self):
            return {"type": "other"}

    with pytest.raises(UserError, match="found process 'other'"):
        default_weighting(Other())  # type: ignore[arg-type]
