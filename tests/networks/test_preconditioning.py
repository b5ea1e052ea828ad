"""Preconditioning: boundary values, unit-variance design, the generator wrapper, precision and building from config."""

import pytest
import torch
from torch import Tensor, nn

from unistep.diffusion.process import ContinuousVPProcess, DiscreteVPProcess, EDMProcess, FlowProcess, NoiseProcess
from unistep.diffusion.weighting import training_weight
from unistep.errors import UserError
from unistep.networks import MLP, EDMDenoiser, Generator, build_denoiser, resolve_precision
from unistep.networks.precision import autocast, has_bf16
from unistep.recipes.sections import GeneratorConfig
from unistep.run.weights import initial_time
from unistep.teachers.module import teacher_from_module


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
            training_weight("F", process, t, sigma_data).float(), 1 / c_out[:, 0] ** 2, rtol=1e-3, atol=0
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


@pytest.mark.parametrize(
    "process", [EDMProcess(), DiscreteVPProcess.linear(), ContinuousVPProcess(), FlowProcess(shift=3.0)],
    ids=lambda p: type(p).__name__,
)  # fmt: skip
def test_the_network_is_told_a_quarter_of_the_log_noise_to_signal_ratio(process: NoiseProcess) -> None:
    recorder = Recorder()
    t = process.time(torch.tensor([0.05, 0.3, 0.6, 0.95]))
    EDMDenoiser(recorder, process)(torch.ones(4, 2), t)
    torch.testing.assert_close(recorder.c_noise, (process.sigma(t) / process.alpha(t)).log() / 4)


def test_without_signal_the_network_is_told_a_bound() -> None:
    recorder = Recorder()
    EDMDenoiser(recorder, FlowProcess())(torch.ones(2, 2), torch.tensor([1.0, 0.8]))
    torch.testing.assert_close(recorder.c_noise, torch.tensor([1e4, 4.0]).log() / 4)


class Asked(nn.Module):
    """Returns its input and remembers it with the time."""

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        self.x_t, self.t = x_t, t
        return x_t


@pytest.mark.parametrize(
    ("process", "t_init"),
    [(DiscreteVPProcess.linear(), 500.0), (ContinuousVPProcess(), 0.3), (FlowProcess(), 0.4), (EDMProcess(), 2.5)],
    ids=lambda p: type(p).__name__,
)
def test_a_generator_held_at_t_init_sees_noise_of_sigma_at_that_time(process: NoiseProcess, t_init: float) -> None:
    asked, z, t = Asked(), torch.randn(3, 2), torch.full((3,), t_init)
    Generator(asked, process, t_init)(z)
    torch.testing.assert_close(asked.t, t)
    torch.testing.assert_close(asked.x_t, process.sigma(t)[:, None] * z)


def test_a_generator_of_a_vp_process_starts_at_its_last_timestep_with_z_itself() -> None:
    asked, z = Asked(), torch.randn(3, 2)
    Generator(asked, DiscreteVPProcess.linear())(z)
    assert asked.t.tolist() == [999.0] * 3
    assert torch.equal(asked.x_t, z)


@pytest.mark.parametrize(
    ("process", "config", "expected"),
    [
        (DiscreteVPProcess.linear(), {"u_init": 0.5}, 500.0),
        (FlowProcess(shift=3.0, num_bins=101), {"u_init": 0.495}, 3 * 0.5 / 2),
        (EDMProcess(), {"u_init": 1.0}, 80.0),
        (EDMProcess(), {"sigma_init": 2.5}, 2.5),
        (DiscreteVPProcess.linear(), {}, None),
    ],
)
def test_where_a_recipe_holds_its_generator(
    process: NoiseProcess, config: dict[str, float], expected: float | None
) -> None:
    teacher = teacher_from_module(nn.Identity(), process, "x0", (2,))
    assert initial_time(GeneratorConfig(**config), teacher) == (None if expected is None else pytest.approx(expected))
    if process.config()["type"] != "edm":
        with pytest.raises(UserError, match="expected an EDM process; use generator.u_init"):
            initial_time(GeneratorConfig(sigma_init=2.5), teacher)


def test_each_label_moves_an_mlp_s_answer_its_own_way() -> None:
    torch.manual_seed(0)
    network, x, c_noise = MLP(2, 16, 1, label_dim=3), torch.randn(1, 2).expand(4, 2), torch.zeros(4)
    none = network(x, c_noise)
    labelled = network(x, c_noise, torch.eye(4, 3))  # the last row is no class
    assert torch.equal(labelled[3], none[3])
    assert torch.pdist(labelled).min() > 1e-3
    with torch.no_grad():
        network.label.weight.zero_()  # type: ignore[union-attr]
    assert torch.equal(network(x, c_noise, torch.eye(4, 3)), none)


@pytest.mark.parametrize(
    ("amx", "avx512", "native", "auto"),
    [(False, False, False, "fp32"), (False, True, True, "fp32"), (True, True, True, "bf16")],
)
def test_bf16_is_chosen_only_where_it_pays(
    amx: bool, avx512: bool, native: bool, auto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    assert (has_bf16("cpu"), resolve_precision("cpu", "auto")) == (native, auto)
    assert (resolve_precision("cpu", "fp32"), resolve_precision("cpu", "bf16")) == ("fp32", "bf16")


def test_autocast_is_on_for_bf16_alone() -> None:
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
    with pytest.raises(UserError, match="network.type: found 'resnet'; did you mean unet\\? expected one of unet, mlp"):
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
