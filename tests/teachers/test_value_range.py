"""A network of pixels in another range than [-1, 1]: said once, known to codec, certificate, distances and export."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import unistep
from unistep.diffusion.process import DiscreteVPProcess
from unistep.errors import UserError
from unistep.evaluation.extractors.network_file import PerceptualNetwork
from unistep.export.diffusers_folder import write_pixels
from unistep.export.student import Student
from unistep.losses.regression import RegressionName
from unistep.methods.config import Distance
from unistep.run import distance as distances
from unistep.run.distance import distance_of
from unistep.teacher_checks import certify
from unistep.teachers.analytic import GaussianMixture
from unistep.teachers.codecs import PixelCodec, codec_from_config
from unistep.teachers.module import teacher_from_module

BYTES = torch.arange(256, dtype=torch.uint8)
PROCESS = DiscreteVPProcess.cosine()


class Bright(nn.Module):
    """Smooth pictures of 8x8 pixels in [0, 1], many of them dark, whose x_0 it predicts exactly."""

    def __init__(self) -> None:
        super().__init__()
        ramp = torch.linspace(0, 1, 8, dtype=torch.float64).expand(8, 8)
        means = torch.stack([ramp**2, ramp.T**2, (ramp * ramp.T), (ramp.flip(1) * ramp)])[:, None]
        self.mixture = GaussianMixture(means, 0.03, PROCESS)
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.mixture(x_t, t, None)


def bright(**options: Any) -> unistep.Teacher:
    return teacher_from_module(Bright(), PROCESS, "x0", (1, 8, 8), **options)


@given(low=st.floats(-10, 10), width=st.floats(0.1, 300))
def test_bytes_survive_any_range_and_its_configuration(low: float, width: float) -> None:
    codec = PixelCodec(low, low + width)
    x = codec.encode(BYTES)
    assert torch.equal(codec.decode(x), BYTES)
    assert torch.allclose(x[[0, -1]], torch.tensor([low, low + width]), atol=1e-4 * (1 + abs(low) + width))
    assert codec_from_config(codec.config()) == codec


def test_pixels_from_minus_one_to_one_are_as_they_were() -> None:
    assert PixelCodec().config() == {"type": "pixels"} and codec_from_config({"type": "pixels"}) == PixelCodec()
    assert torch.equal(PixelCodec().encode(BYTES), BYTES.float() / 127.5 - 1)
    assert bright().sha256 == bright(value_range=(-1, 1)).sha256 != bright(value_range=(0, 1)).sha256


@pytest.mark.parametrize("found", [(1, 0), (0, float("nan")), (0, float("inf"))])
def test_a_range_that_is_none_is_refused(found: tuple[float, float]) -> None:
    with pytest.raises(UserError, match=r"value_range: found .* expected finite numbers"):
        bright(value_range=found)


@pytest.mark.parametrize("found", [1, "01", (0, 1, 2), None])
def test_what_is_no_pair_of_numbers_is_refused(found: Any) -> None:
    with pytest.raises(UserError, match=r"value_range: found .* expected two numbers such as \(0, 1\)"):
        bright(value_range=found)


def test_the_certificate_says_that_pixels_look_like_those_of_another_range() -> None:
    said = {name: next(c.words for c in certify(t).checks if c.name == "samples") for name, t in
            {"unsaid": bright(), "said": bright(value_range=(0, 1))}.items()}  # fmt: skip
    assert "say value_range=(0, 1)" in said["unsaid"]
    assert "value_range" not in said["said"] and "far outside 0..1" in said["said"]


def test_pictures_that_leave_the_bright_half_are_not_suspected() -> None:
    assert not any("value_range" in c.words for c in certify(unistep.load_teacher("embedded:fashion-mnist")).checks)


@pytest.mark.parametrize("name", ["perceptual", "multiscale"])
def test_networks_that_see_images_see_them_in_minus_one_to_one(
    name: RegressionName, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    features = PerceptualNetwork(1, 8, 2, (8, 8, 8)).eval().requires_grad_(False)
    monkeypatch.setattr(distances, "perceptual_network", lambda *_: features)
    place = "anywhere" if name == "perceptual" else None
    wanted, x, y = Distance(name, place, 1.0), torch.rand(3, 1, 8, 8), torch.rand(3, 1, 8, 8)
    found = distance_of(wanted, bright(value_range=(0, 1)), torch.device("cpu"))
    plain = distance_of(wanted, bright(), torch.device("cpu"))
    assert found is not None and plain is not None
    seen = (2 * x - 1, 2 * y - 1) if name == "perceptual" else (x, y)
    assert torch.allclose(found(x, y), plain(*seen), rtol=1e-5)


def test_pipelines_of_diffusers_know_no_other_range() -> None:
    denoiser: Any = object()
    generator: Any = None
    config = {"shape": [1, 8, 8], "codec": PixelCodec(0, 1).config(), "conditioner": None}
    student = Student(generator=generator, config=config, sha256="", name="mine")
    with pytest.raises(UserError, match=r"codec: found PixelCodec\(low=0.*expected pixels in \[-1, 1\]"):
        write_pixels(student, denoiser, None, Path())
