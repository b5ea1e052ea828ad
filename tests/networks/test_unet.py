"""The U-Net against golden outputs of the published architecture, and its shapes, stem and conditioning."""

import pytest
import torch
from golden_values import fill_by_rule, values

from unistep.diffusion.process import EDMProcess
from unistep.networks import EDMDenoiser, UNet


def small_unet(**changes: object) -> UNet:
    arguments = {"img_resolution": 8, "img_channels": 2, "model_channels": 16, "channel_mult": (1, 2), "num_blocks": 1}
    return UNet(**{**arguments, "attn_resolutions": (4,), **changes})  # type: ignore[arg-type]


def test_matches_golden_outputs_of_the_published_architecture() -> None:
    golden = values("ddpmpp-edm-cond")
    net = UNet(16, 3, 32, (1, 2), 1, (8,), label_dim=4)
    denoiser = EDMDenoiser(net, EDMProcess(), label_dim=4).eval()
    fill_by_rule(denoiser)
    with torch.no_grad():
        denoised = denoiser(golden["x"], golden["sigma"], golden["labels"].argmax(1))
    error = (denoised - golden["denoised"]).abs().max() / golden["denoised"].abs().max()
    assert error < 1e-5


@pytest.mark.parametrize("patch", [1, 2])
def test_stem_keeps_the_shape(patch: int) -> None:
    x = torch.randn(3, 2, 8, 8)
    assert small_unet(patch=patch, label_dim=5)(x, torch.zeros(3), torch.eye(5)[:3]).shape == x.shape


def test_no_class_is_the_zero_row() -> None:
    denoiser = EDMDenoiser(small_unet(label_dim=3), EDMProcess(), label_dim=3)
    rows = denoiser.one_hot(torch.tensor([-1, 0, 2]))
    assert rows is not None
    assert rows.tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 1]]


def test_label_and_noise_level_have_an_effect() -> None:
    denoiser = EDMDenoiser(small_unet(label_dim=3), EDMProcess(), label_dim=3)
    fill_by_rule(denoiser)
    x, t = torch.randn(1, 2, 8, 8).repeat(3, 1, 1, 1), torch.tensor([1.0, 1.0, 2.0])
    a, b, c = denoiser(x, t, torch.tensor([0, 1, 0]))
    assert not torch.allclose(a, b)
    assert not torch.allclose(a, c)


def test_dropout_is_off_in_eval_mode() -> None:
    net = small_unet(dropout=0.5)
    fill_by_rule(net)
    x, c_noise = torch.randn(2, 2, 8, 8), torch.zeros(2)
    assert not torch.equal(net(x, c_noise), net(x, c_noise))
    net.eval()
    assert torch.equal(net(x, c_noise), net(x, c_noise))


def test_channels_last_gives_the_same_numbers() -> None:
    net = small_unet()
    fill_by_rule(net)
    x, c_noise = torch.randn(2, 2, 8, 8), torch.zeros(2)
    before = net(x, c_noise)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.testing.assert_close(net(x.to(memory_format=torch.channels_last), c_noise), before, rtol=1e-4, atol=1e-5)


def test_indivisible_resolution_says_what_is_expected() -> None:
    with pytest.raises(ValueError, match="found 10, expected a multiple of 4"):
        small_unet(img_resolution=10, patch=2)
