"""A user's own network as a teacher, conditioners and codecs."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from unistep.errors import UserError
from unistep.process import DiscreteVPProcess, EDMProcess
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


def test_the_weighting_is_the_one_given_or_the_process_s_own() -> None:
    process, t = EDMProcess(), torch.tensor([0.1, 2.0, 40.0])
    given = Teacher.from_module(nn.Identity(), process, "x0", (2,), weighting=lambda t: 7 / t)
    torch.testing.assert_close(given.weighting(t), 7 / t)
    usual = Teacher.from_module(nn.Identity(), process, "x0", (2,))
    torch.testing.assert_close(usual.weighting(t), 1 / t**2 + 4)


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
