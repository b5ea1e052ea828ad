"""Preconditioning: boundary values, unit-variance design, the generator wrapper, precision and building from config."""

import pytest
import torch
from torch import Tensor, nn

from unistep.errors import UserError
from unistep.networks import MLP, EDMDenoiser, Generator, build_denoiser, resolve_precision
from unistep.networks.precision import autocast, cpu_has_bf16
from unistep.networks.preconditioning import edm_weighting
from unistep.process import ContinuousVPProcess, EDMProcess, FlowProcess


class Recorder(nn.Module):
    """Returns a constant and remembers its input."""

    def __init__(self, output: float = 0.0):
        super().__init__()
        self.output, self.seen = output, torch.empty(0)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        self.seen, self.c_noise = x, c_noise
        return torch.full_like(x, self.output)


def test_published_coefficients_at_sigma_80() -> None:
    x = torch.ones(1, 4)
    zero, one = Recorder(0.0), Recorder(1.0)
    c_skip = EDMDenoiser(zero, EDMProcess())(x, torch.tensor([80.0]))
    c_out = EDMDenoiser(one, EDMProcess())(x, torch.tensor([80.0])) - c_skip
    assert c_skip[0, 0].item() == pytest.approx(3.906e-5, rel=1e-3)
    assert c_out[0, 0].item() == pytest.approx(0.49999, rel=1e-5)
    assert zero.seen[0, 0].item() == pytest.approx(0.0125, rel=1e-3)
    assert zero.c_noise.item() == pytest.approx(1.0955, rel=1e-4)


@pytest.mark.parametrize(
    "process", [EDMProcess(), ContinuousVPProcess(), FlowProcess()], ids=lambda p: type(p).__name__
)
def test_input_and_target_have_unit_variance(process: EDMProcess | ContinuousVPProcess | FlowProcess) -> None:
    torch.manual_seed(0)
    sigma_data, recorder = 0.7, Recorder()
    denoiser = EDMDenoiser(recorder, process, sigma_data=sigma_data)
    for u in (0.3, 0.7, 1.0):
        t = process.time(torch.full((20000,), u))
        x, eps = sigma_data * torch.randn(20000, 1), torch.randn(20000, 1)
        alpha, sigma = process.alpha(t)[:, None].float(), process.sigma(t)[:, None].float()
        x_t = alpha * x + sigma * eps
        skip = denoiser(x_t, t)
        recorder.output = 1.0
        c_out = denoiser(x_t, t) - skip
        recorder.output = 0.0
        assert recorder.seen.std().item() == pytest.approx(1.0, abs=0.03)
        assert ((x - skip) / c_out).std().item() == pytest.approx(1.0, abs=0.03)
        torch.testing.assert_close(
            edm_weighting(process, sigma_data, t).float(), 1 / c_out[:, 0] ** 2, rtol=1e-3, atol=0
        )


def test_generator_asks_the_denoiser_at_the_terminal_time() -> None:
    seen = {}

    def denoiser(x_t: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        seen.update(x_t=x_t, t=t)
        return x_t

    module = nn.Module()
    module.forward = denoiser  # type: ignore[method-assign]
    z = torch.randn(3, 2)
    Generator(module, EDMProcess())(z)
    torch.testing.assert_close(seen["x_t"], 80 * z)
    torch.testing.assert_close(seen["t"], torch.full((3,), 80.0), check_dtype=False)
    Generator(module, EDMProcess(), t_init=2.5)(z)
    torch.testing.assert_close(seen["x_t"], 2.5 * z)


def test_bf16_is_used_only_where_it_is_native() -> None:
    assert resolve_precision("cpu", "auto") == ("bf16" if cpu_has_bf16() else "fp32")
    assert resolve_precision("cpu", "fp32") == "fp32"
    with autocast("cpu", "bf16"):
        assert torch.is_autocast_enabled("cpu")
    with autocast("cpu", "fp32"):
        assert not torch.is_autocast_enabled("cpu")


def test_bf16_autocast_stays_close_and_returns_float32() -> None:
    torch.manual_seed(0)
    denoiser = EDMDenoiser(MLP(2, 32, 2), EDMProcess())
    x, t = torch.randn(64, 2), torch.full((64,), 1.0)
    reference = denoiser(x, t)
    with autocast("cpu", "bf16"):
        low = denoiser(x, t)
    assert low.dtype == torch.float32
    assert (low - reference).abs().max() < 0.05


def test_unknown_network_names_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="network.type: found 'resnet', expected one of unet, mlp"):
        build_denoiser({"network": {"type": "resnet"}, "process": {"type": "edm"}})
    with pytest.raises(UserError, match="heads"):
        build_denoiser({"network": {"type": "mlp", "heads": 3}, "process": {"type": "edm"}})


@pytest.mark.parametrize(
    ("key", "value", "least"),
    [("label_dim", -1, 0), ("img_channels", 0, 1), ("img_resolution", 0, 1), ("img_resolution", -8, 1)],
)
def test_sizes_that_make_no_network_are_refused(key: str, value: int, least: int) -> None:
    network = {"type": "unet", "img_resolution": 8, "img_channels": 1, "model_channels": 8, key: value}
    with pytest.raises(UserError, match=f"network.{key}: found {value}, expected {least} or more"):
        build_denoiser({"network": network, "process": {"type": "edm"}})
