"""The published architectures: outputs, names, shapes and sizes against golden values."""

from typing import Any

import pytest
import torch
from golden_values import FULL, SMALL, class_indices, fill_by_rule, golden, values
from torch import Tensor

from unistep.errors import UserError
from unistep.networks import EDMDenoiser, build_denoiser, build_network
from unistep.networks.edm_preconditioning import EDM2Denoiser
from unistep.networks.layers import Resample
from unistep.networks.preconditioning import count_parameters


@pytest.mark.parametrize("name", SMALL)
def test_outputs_names_and_shapes_are_those_of_the_golden_files(name: str) -> None:
    known, held = golden(name), values(name)
    denoiser = build_denoiser(known.config).eval()
    assert {key: tuple(value.shape) for key, value in denoiser.state_dict().items()} == known.shapes
    assert count_parameters(denoiser) == known.num_parameters
    fill_by_rule(denoiser, known.edm2)
    with torch.no_grad():
        denoised = denoiser(held["x"], held["sigma"], class_indices(held["labels"]))
    # each sigma alone: at small sigma the input nearly is the output, and would hide the others in one maximum
    error = (denoised - held["denoised"]).flatten(1).abs().amax(1) / held["denoised"].flatten(1).abs().amax(1)
    print(f"{name}: largest relative difference {error.max():.1e}")
    assert error.max() < 1e-4


@pytest.mark.parametrize("name", FULL)
def test_published_sizes_have_the_published_names(name: str) -> None:
    known = golden(name)
    with torch.device("meta"):
        denoiser = build_denoiser(known.config)
    assert {key: tuple(value.shape) for key, value in denoiser.state_dict().items()} == known.shapes
    assert count_parameters(denoiser) == known.num_parameters


@pytest.mark.parametrize(("model_channels", "millions"), [(128, 125), (192, 280)], ids=["XS", "S"])
def test_edm2_has_the_sizes_of_its_paper(model_channels: int, millions: int) -> None:
    network = {"type": "edm2_unet", "img_resolution": 64, "img_channels": 4, "label_dim": 1000}
    with torch.device("meta"):
        denoiser = build_network({**network, "model_channels": model_channels})
    assert round(count_parameters(denoiser) / 1e6) == millions


SMALL_EDM2 = {"type": "edm2_unet", "img_resolution": 16, "img_channels": 3, "label_dim": 3, "model_channels": 32,
              "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [8]}  # fmt: skip
SMALL_ADM = {**SMALL_EDM2, "type": "dhariwal_unet"}
SMALL_SONG = {**SMALL_EDM2, "type": "song_unet"}


def small(network: dict[str, Any], **changes: object) -> EDMDenoiser:
    """A small denoiser with the rule's weights; EDM2's gains start at 0, where nothing has an effect."""
    denoiser = build_denoiser({"network": {**network, **changes}, "process": {"type": "edm"}}).eval()
    fill_by_rule(denoiser, network["type"] == "edm2_unet")
    return denoiser


def images(rows: int = 2) -> tuple[Tensor, Tensor]:
    x = torch.randn(rows, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return x, torch.full((rows,), 1.5)


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_a_forward_pass_at_published_size(name: str) -> None:
    known = golden(name)
    denoiser = build_denoiser(known.config).eval()
    size = known.kwargs["img_resolution"]
    with torch.no_grad():
        denoised = denoiser(torch.randn(1, 3, size, size), torch.tensor([0.5]), torch.tensor([3]))
    assert denoised.shape == (1, 3, size, size)
    assert bool(denoised.isfinite().all())


@pytest.mark.parametrize("network", [SMALL_SONG, SMALL_ADM, SMALL_EDM2], ids=lambda n: n["type"])
def test_classes_differ_and_no_class_is_the_zero_row(network: dict[str, Any]) -> None:
    denoiser, (x, sigma) = small(network), images()
    with torch.no_grad():
        first, second = (denoiser(x, sigma, torch.full((2,), label)) for label in (0, 1))
        none, absent = denoiser(x, sigma, torch.full((2,), -1)), denoiser(x, sigma)
    assert not torch.allclose(first, second)
    assert not torch.allclose(first, none)
    torch.testing.assert_close(absent, none, rtol=0, atol=0)


@pytest.mark.parametrize("network", [SMALL_SONG, SMALL_ADM, SMALL_EDM2], ids=lambda n: n["type"])
def test_networks_without_classes_take_no_labels(network: dict[str, Any]) -> None:
    denoiser, (x, sigma) = small(network, label_dim=0), images()
    assert not [name for name in denoiser.state_dict() if "label" in name]
    assert denoiser(x, sigma).shape == x.shape


@pytest.mark.parametrize("encoder_type", ["standard", "skip", "residual"])
@pytest.mark.parametrize("decoder_type", ["standard", "skip"])
def test_every_kind_of_skip_trains_all_its_parameters(encoder_type: str, decoder_type: str) -> None:
    denoiser = small(SMALL_SONG, encoder_type=encoder_type, decoder_type=decoder_type, embedding_type="fourier",
                     resample_filter=[1, 3, 3, 1], augment_dim=9, channel_mult=[1, 2, 2])  # fmt: skip
    x, sigma = images()
    denoiser(x, sigma, torch.tensor([0, 1])).square().sum().backward()
    assert not [name for name, p in denoiser.named_parameters() if p.grad is None]
    silent = [name for name, p in denoiser.named_parameters() if p.grad is not None and not p.grad.any()]
    assert silent == ["model.map_augment.weight"]  # it is fed zeros


@pytest.mark.parametrize("name", SMALL)
def test_bf16_under_autocast_leaves_embeddings_in_float32(name: str) -> None:
    known, held = golden(name), values(name)
    denoiser = build_denoiser(known.config).eval()
    fill_by_rule(denoiser, known.edm2)
    embedding = next(m for n, m in denoiser.named_modules() if n.endswith(("map_noise", "emb_fourier")))
    c_noise = torch.tensor([500.0, 500.5])  # one number in bf16
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        low = embedding(c_noise)
        denoised = denoiser(held["x"], held["sigma"], class_indices(held["labels"]))
    assert low.dtype == torch.float32
    assert torch.equal(low, embedding(c_noise))
    assert (low[0] - low[1]).abs().max() > 0.1
    assert denoised.dtype == torch.float32
    assert (denoised - held["denoised"]).abs().max() / held["denoised"].abs().max() < 0.05


def test_resampling_filters_keep_constants_and_halve_what_they_doubled() -> None:
    x = torch.full((1, 2, 8, 8), 3.0)
    for taps in ((1, 1), (1, 3, 3, 1)):
        inner = slice(2, -2)
        up, down = Resample("up", taps)(x), Resample("down", taps)(x)
        assert (up.shape[-1], down.shape[-1]) == (16, 4)
        torch.testing.assert_close(up[..., inner, inner], torch.full((1, 2, 12, 12), 3.0))
        torch.testing.assert_close(down[..., 1:-1, 1:-1], torch.full((1, 2, 2, 2), 3.0))
    torch.testing.assert_close(Resample("up", (1, 1))(x), x.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_the_head_for_uncertainty_is_optional_and_changes_no_image() -> None:
    denoiser, (x, sigma) = small(SMALL_EDM2), images()
    config = {"network": SMALL_EDM2, "process": {"type": "edm"}, "preconditioning": {"type": "edm"}}
    config["preconditioning"]["logvar_channels"] = 16
    headed = build_denoiser(config).eval()
    fill_by_rule(headed, edm2=True)
    assert isinstance(headed, EDM2Denoiser)
    assert torch.equal(headed(x, sigma), denoiser(x, sigma))
    assert headed.log_variance(sigma).shape == sigma.shape
    assert {name.split(".")[0] for name in headed.state_dict()} == {"unet", "logvar_fourier", "logvar_linear"}


@pytest.mark.parametrize(
    ("network", "message"),
    [({**SMALL_ADM, "model_channels": 24}, "network.model_channels: found a level of 48 channels with attention"),
     ({**SMALL_EDM2, "img_resolution": 15}, "network.img_resolution: found 15, expected a multiple of 2"),
     ({**SMALL_SONG, "encoder_type": "skips"}, "network.encoder_type: found 'skips', expected"),
     ({**SMALL_SONG, "channel_mult_noise": 0}, "network.channel_mult_noise: found 0, expected 1 or more"),
     ({**SMALL_SONG, "resample_filter": [1, 2, 1]}, "network.resample_filter: found 3 taps, expected an even number")],
)  # fmt: skip
def test_sizes_that_make_no_network_are_refused(network: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_denoiser({"network": network, "process": {"type": "edm"}})
