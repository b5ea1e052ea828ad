"""A user's own network as a teacher, conditioners and codecs."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from unistep.diffusion.prediction import to_x0
from unistep.diffusion.process import ContinuousVPProcess, DiscreteVPProcess, EDMProcess, FlowProcess, NoiseProcess
from unistep.errors import UserError
from unistep.teachers.checkpoint import load_generator, save_denoiser
from unistep.teachers.codecs import PixelCodec
from unistep.teachers.conditioners import LabelConditioner
from unistep.teachers.module import teacher_from_module
from unistep.teachers.teacher import Teacher


class EpsNetwork(nn.Module):
    """The exact eps-prediction for data that are all equal to `value`."""

    def __init__(self, process: DiscreteVPProcess, value: float):
        super().__init__()
        self.process, self.value = process, nn.Parameter(torch.tensor(value))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (c.float().reshape(-1, 1) for c in (self.process.alpha(t), self.process.sigma(t)))
        return (x_t - alpha * self.value) / sigma


def test_prediction_is_converted_at_the_border() -> None:
    process = DiscreteVPProcess.linear()
    teacher = teacher_from_module(EpsNetwork(process, 0.3), process, "eps", (4,))
    mu = teacher(torch.randn(5, 4), torch.tensor([0.0, 10, 100, 500, 999]))
    torch.testing.assert_close(mu, torch.full((5, 4), 0.3), atol=2e-3, rtol=0)


def test_hash_follows_the_weights() -> None:
    process = DiscreteVPProcess.linear()
    a, b, c = (teacher_from_module(EpsNetwork(process, v), process, "eps", (4,)).sha256 for v in (0.3, 0.3, 0.4))
    assert a == b != c


def test_hash_tells_how_the_same_weights_are_read() -> None:
    process = DiscreteVPProcess.linear()
    network = EpsNetwork(process, 0.3)
    readings = {Teacher.from_module(network, process, kind, (4,)).sha256 for kind in ("eps", "v", "x0")}
    assert len(readings) == 3


class NoTime(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.layer = nn.Linear(dim, dim)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.layer(x_t)


class Zero(nn.Module):
    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(x_t)


class One(nn.Module):
    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return torch.ones_like(x_t)


def test_hash_tells_networks_without_parameters_apart() -> None:
    def sha256(network: nn.Module, shape: tuple[int, ...] = (2,), **options: Any) -> str:
        return teacher_from_module(network, EDMProcess(), "x0", shape, **options).sha256

    hashes = [sha256(Zero()), sha256(One()), sha256(nn.Sequential(Zero())), sha256(Zero(), (3,))]
    hashes += [sha256(Zero(), sigma_data=1.0), sha256(Zero(), num_classes=2)]
    assert len(set(hashes)) == len(hashes) and sha256(Zero()) == hashes[0]


def test_an_f_network_is_read_with_its_own_sigma_data() -> None:
    teacher = Teacher.from_module(One(), EDMProcess(), "F", (2,), sigma_data=1.0)
    x_t, t = torch.full((1, 2), 3.0), torch.tensor([2.0])
    expected = x_t / (1 + 4) + 2 / math.sqrt(1 + 4)  # c_skip x_t + c_out, EDM's Table 1 at sigma_data 1
    torch.testing.assert_close(teacher(x_t, t), expected)
    assert teacher.weighting(t).item() == pytest.approx(1 / 4 + 1)


@pytest.mark.parametrize("sigma_data", [0.0, -1.0, math.nan, math.inf])
def test_a_sigma_data_that_is_none_is_refused(sigma_data: float) -> None:
    with pytest.raises(UserError, match=r"sigma_data: found .*, expected a positive number"):
        teacher_from_module(Zero(), EDMProcess(), "F", (2,), sigma_data=sigma_data)


def test_an_unknown_prediction_is_refused_at_once() -> None:
    with pytest.raises(UserError, match="prediction: found 'noise'; did you mean eps\\? expected one of x0, eps, v"):
        teacher_from_module(Zero(), EDMProcess(), "noise", (2,))  # type: ignore[arg-type]


def test_autocast_leaves_the_conversion_in_float32() -> None:
    torch.manual_seed(0)
    process, network = DiscreteVPProcess.scaled_linear(), NoTime(4)
    teacher = teacher_from_module(network, process, "eps", (4,))
    x_t, t = torch.randn(3, 4), torch.full((3,), 999.0)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        mu, output = teacher(x_t, t), network(x_t, t)
    assert (mu.dtype, output.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(mu, to_x0(output.float(), x_t, t, "eps", process), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_network_is_called_in_its_own_type_under_autocast_too(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    network = NoTime(4).to(dtype)
    teacher = teacher_from_module(network, DiscreteVPProcess.scaled_linear(), "x0", (4,))
    x_t, t = torch.randn(3, 4), torch.full((3,), 999.0)
    mu = teacher(x_t, t)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert torch.equal(teacher(x_t, t), mu)
    assert mu.dtype == torch.float32
    torch.testing.assert_close(mu, network(x_t.to(dtype), t).float(), rtol=0, atol=0)


def test_a_generator_of_a_foreign_network_opens_with_its_teacher(tmp_path: Path) -> None:
    process = DiscreteVPProcess.linear()
    teacher = Teacher.from_module(EpsNetwork(process, 0.3), process, "eps", (4,))
    save_denoiser(tmp_path / "generator", teacher.denoiser, {"t_init": None})
    generator, _, _ = load_generator(tmp_path, teacher)
    torch.testing.assert_close(generator(torch.zeros(2, 4)), torch.full((2, 4), 0.3), atol=0.1, rtol=0)
    with pytest.raises(UserError, match="a module of your own"):
        load_generator(tmp_path)


def test_labels_reach_the_network() -> None:
    class ByLabel(nn.Module):
        def forward(self, x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
            return labels.float()[:, None].expand_as(x_t)

    teacher = teacher_from_module(ByLabel(), EDMProcess(), "x0", (2,), num_classes=3)
    assert teacher.conditioner is not None
    cond = teacher.conditioner.from_seeds(torch.arange(4))
    assert teacher(torch.zeros(4, 2), torch.ones(4), cond)[:, 0].tolist() == [0, 1, 2, 0]


def test_the_weighting_is_the_one_given_or_that_of_the_prediction() -> None:
    process, t = EDMProcess(), torch.tensor([0.1, 2.0, 40.0])
    given = Teacher.from_module(nn.Identity(), process, "x0", (2,), weighting=lambda t: 7 / t)
    torch.testing.assert_close(given.weighting(t), 7 / t)
    usual = Teacher.from_module(nn.Identity(), process, "F", (2,))
    torch.testing.assert_close(usual.weighting(t), 1 / t**2 + 4)
    plain = Teacher.from_module(nn.Identity(), process, "x0", (2,))
    torch.testing.assert_close(plain.weighting(t), torch.ones(3))


def test_eps_without_signal_at_the_end_is_refused_when_the_teacher_is_made() -> None:
    process = DiscreteVPProcess.zero_terminal_snr(DiscreteVPProcess.linear())
    with pytest.raises(UserError, match="prediction eps: found t = 999, expected another time: alpha = 0"):
        Teacher.from_module(nn.Identity(), process, "eps", (2,))
    v = Teacher.from_module(nn.Identity(), process, "v", (2,))
    assert v.weighting(torch.tensor([999.0])).item() == 1


def test_a_teacher_and_its_copies_do_not_drop_out() -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.drop = nn.Parameter(torch.ones(1)), nn.Dropout(0.5)

        def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
            return self.drop(self.weight * x_t)

    teacher = teacher_from_module(Dropping().train(), EDMProcess(), "x0", (64,))
    x, t = torch.ones(3, 64), torch.ones(3)
    copy = teacher.trainable_copy()
    assert torch.equal(teacher(x, t), x)
    assert torch.equal(copy(x, t), x)
    assert not any(p.requires_grad for p in teacher.denoiser.parameters())
    assert all(p.requires_grad for p in copy.parameters())


def test_wrong_output_shape_is_named() -> None:
    class Wrong(nn.Module):
        def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
            return x_t[:, :1]

    teacher = teacher_from_module(Wrong(), EDMProcess(), "x0", (2,))
    with pytest.raises(UserError, match=r"found output \(3, 1\), expected x_t's \(3, 2\)"):
        teacher(torch.zeros(3, 2), torch.ones(3))


def test_conditioner_is_balanced_and_checks_labels() -> None:
    conditioner = LabelConditioner(3)
    assert conditioner.from_seeds(torch.arange(300)).bincount().tolist() == [100, 100, 100]
    assert conditioner.null(2).tolist() == [-1, -1]
    with pytest.raises(UserError, match="label: found 3, expected 0..2"):
        conditioner.from_labels(torch.tensor([0, 3]))
    with pytest.raises(UserError, match="found 2 names, expected 3"):
        LabelConditioner(3, ("a", "b"))


@given(st.integers(0, 255))
def test_pixels_survive_the_round_trip(value: int) -> None:
    image = torch.full((1, 1, 2, 2), value, dtype=torch.uint8)
    assert torch.equal(PixelCodec().decode(PixelCodec().encode(image)), image)


def test_decoding_clamps() -> None:
    assert PixelCodec().decode(torch.tensor([[-3.0, 3.0]])).tolist() == [[0, 255]]


class Classes(nn.Module):
    """A network of ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        return x + self.embedding(labels.clamp(min=0))


@pytest.mark.parametrize(
    ("name", "process"),
    [
        ("edm", EDMProcess()),
        ("ddpm-linear", DiscreteVPProcess.linear()),
        ("ddpm-cosine", DiscreteVPProcess.cosine()),
        ("sd", DiscreteVPProcess.scaled_linear()),
        ("vp-sde", ContinuousVPProcess()),
        ("flow", FlowProcess()),
    ],
)
def test_a_process_by_name(name: str, process: NoiseProcess) -> None:
    network = nn.Linear(4, 4)
    named, made = (teacher_from_module(network, p, "x0", (4,)) for p in (name, process))
    assert named.process.config() == made.process.config() == process.config()
    assert named.sha256 == made.sha256


NAMES = "edm, ddpm-linear, ddpm-cosine, sd, vp-sde, flow"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"process": "vp"}, f"process: found 'vp', expected one of {NAMES}"),
        (
            {"process": "ddpm_linear"},
            f"process: found 'ddpm_linear'; did you mean ddpm-linear? expected one of {NAMES[:9]}",
        ),
        (
            {"process": EDMProcess},
            "process: found <class 'unistep.diffusion.process.edm.EDMProcess'>, expected a noise process",
        ),
        (
            {"process": 3},
            "process: found 3, expected a noise process such as DiscreteVPProcess.linear(), or one of",
        ),
        ({"process": {"type": "edn"}}, "process.type: found 'edn'; did you mean edm? expected one of edm, discrete_vp"),
        ({"network": lambda x, t: x}, "network: found <function <lambda> at"),
        ({"prediction": "epsilon"}, "prediction: found 'epsilon'; did you mean eps? expected one of x0, eps, v, "),
        ({"prediction": "velocty"}, "prediction: found 'velocty'; did you mean velocity? expected one of x0"),
        ({"prediction": None}, "prediction: found None, expected one of x0, eps, v, velocity, score, F"),
        ({"shape": 4}, "shape: found 4, expected the dims of one sample, such as (3, 32, 32), or (2,) for points"),
        ({"shape": (3, 0)}, "shape: found (3, 0), expected the dims of one sample"),
        ({"num_classes": -1}, "num_classes: found -1, expected a whole number, 0 for a network without classes"),
    ],
)
def test_what_is_no_teacher_is_refused_in_one_line(changes: dict, message: str) -> None:
    given = {"network": nn.Identity(), "process": "edm", "prediction": "x0", "shape": (4,), **changes}
    with pytest.raises(UserError) as caught:
        teacher_from_module(**given)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_more_classes_than_the_network_has_are_refused() -> None:
    assert teacher_from_module(Classes(), "edm", "x0", (4,), num_classes=10).conditioner is not None
    with pytest.raises(UserError, match=r"^num_classes: found 11, expected as many as the network has: for label 10 "):
        teacher_from_module(Classes(), "edm", "x0", (4,), num_classes=11)


@pytest.mark.parametrize("label", [10, -2])
def test_labels_out_of_range_are_refused(label: int) -> None:
    conditioner = teacher_from_module(Classes(), "edm", "x0", (4,), num_classes=10).conditioner
    assert conditioner is not None
    with pytest.raises(UserError, match=rf"^label: found {label}, expected 0\.\.9"):
        conditioner.from_labels(torch.tensor([0, label]))
