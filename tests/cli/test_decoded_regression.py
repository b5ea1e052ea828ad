"""Regression of latents on the images that they are decoded to: gradients, memory, the tiny decoder, refusals."""

import json
import sys
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from unistep.errors import UserError
from unistep.losses.regression import Pairwise, multiscale
from unistep.methods import DMDConfig
from unistep.methods.config import Distance
from unistep.run.distance import distance_of
from unistep.teachers.analytic import mixture_teacher
from unistep.teachers.diffusers import Options, teacher_from_pipeline
from unistep.teachers.diffusers.codec import VAECodec
from unistep.teachers.teacher import Teacher

sys.path.insert(0, str(Path(__file__).parents[1] / "teachers"))
import tiny_pipelines as tiny

CPU = torch.device("cpu")


def tiny_vae(**changes: Any) -> Any:
    config = {
        "encoder_block_out_channels": (4, 4), "decoder_block_out_channels": (4, 4), "num_encoder_blocks": (1, 1),
        "num_decoder_blocks": (1, 1), "latent_channels": 4, "scaling_factor": 2.0,
    }  # fmt: skip
    return tiny.randomised(diffusers.AutoencoderTiny(**(config | changes)))


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return teacher_from_pipeline(tiny.sd15(), Options(prompts=("a",), compare=0))


def distance(teacher: Teacher, folder: Path | None = None, **settings: Any) -> Pairwise:
    found = distance_of(DMDConfig(**settings).distance, teacher, CPU, folder)
    assert found is not None
    return found


def by_hand(vae: Any, scale: float, x: Tensor, y: Tensor) -> Tensor:
    images = (torch.cat([vae.decode(row / scale, return_dict=False)[0] for row in latents]) for latents in
              (x.split(1), y.split(1)))  # fmt: skip
    return multiscale(*images)


def gradient(loss: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(loss.sum(), x)[0]


def test_gradients_go_through_the_teachers_own_vae(teacher: Teacher) -> None:
    assert isinstance(teacher.codec, VAECodec)
    x, y = torch.randn(2, 3, 4, 8, 8).unbind(0)
    x.requires_grad_()
    found = distance(teacher, regression="multiscale", decoder="vae")(x, y)
    expected = by_hand(teacher.codec.vae, teacher.codec.scale, x, y)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient(found, x), gradient(expected, x))
    assert all(p.grad is None for p in teacher.codec.vae.parameters())


def test_a_tiny_decoder_knows_its_own_scale_and_is_recorded(teacher: Teacher, tmp_path: Path) -> None:
    vae = tiny_vae()
    vae.save_pretrained(tmp_path / "taesd")
    (tmp_path / "run").mkdir()
    x, y = torch.randn(2, 3, 4, 8, 8).unbind(0)
    x.requires_grad_()
    spec = f"tiny:{tmp_path / 'taesd'}"
    found = distance(teacher, tmp_path / "run", regression="multiscale", decoder=spec)(x, y)
    expected = by_hand(vae, 2.0, x, y)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient(found, x), gradient(expected, x))
    record = json.loads((tmp_path / "run" / "run.json").read_text())["decoder"]
    assert record["source"] == spec and len(record["sha256"]) == 64


def test_of_decoding_nothing_but_latents_is_kept_for_the_backward_pass(teacher: Teacher) -> None:
    assert isinstance(teacher.codec, VAECodec)

    def kept(decode: Any) -> int:
        sizes: list[int] = []
        x = torch.randn(2, 4, 8, 8, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            decode(x)
        return sum(sizes)

    codec = teacher.codec
    plain = kept(lambda x: codec.vae.decode(x / codec.scale, return_dict=False)[0])
    assert kept(codec.images) < plain / 10


def test_latents_themselves_are_the_cheap_form(teacher: Teacher) -> None:
    x, y = torch.randn(2, 3, 4, 8, 8).unbind(0)
    torch.testing.assert_close(distance(teacher, regression="l2")(x, y), (x - y).square().mean((1, 2, 3)))


@pytest.mark.parametrize("name", ["multiscale", "lpips", "perceptual"])
def test_images_are_not_compared_as_latents(teacher: Teacher, name: str) -> None:
    with pytest.raises(UserError, match=f"^method.regression: found '{name}', a distance of images, for latents of a "):
        distance(teacher, regression=name)


def test_decoders_that_do_not_fit(teacher: Teacher, tmp_path: Path) -> None:
    tiny_vae(latent_channels=16).save_pretrained(tmp_path / "taef1")
    (tmp_path / "empty").mkdir()
    for spec, message in {
        f"tiny:{tmp_path / 'taef1'}": "decodes latents of 16 channels, expected 4 as the teacher has$",
        f"tiny:{tmp_path / 'empty'}": "^method.decoder: cannot load an AutoencoderTiny from ",
        "tiny:./no/where": "^method.decoder: found no folder ./no/where, expected tiny:FOLDER or tiny:OWNER/NAME",
    }.items():
        with pytest.raises(UserError, match=message) as caught:
            distance(teacher, regression="l2", decoder=spec)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="^method.decoder: found vae, expected null: gaussians:ring8 has no latents"):
        distance_of(Distance("l2", None, 1.0, decoder="vae"), mixture_teacher("ring8"), CPU)
    with pytest.raises(ValueError, match="decoder"):
        DMDConfig(decoder="small")


def test_a_hub_id_out_of_reach_is_one_line(teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(spec: str, **given: Any) -> None:
        raise OSError(f"{spec} is not cached\nand the hub cannot be reached")

    monkeypatch.setattr(diffusers.AutoencoderTiny, "from_pretrained", offline)
    with pytest.raises(UserError, match="cannot load an AutoencoderTiny from someone/taesd: someone/taesd is not") as e:
        distance(teacher, regression="l2", decoder="tiny:someone/taesd")
    assert "\n" not in str(e.value)


def test_tiling_bounds_previews_and_leaves_the_loss_alone(tmp_path: Path) -> None:
    pipeline = tiny.sd15()
    plain = teacher_from_pipeline(pipeline, Options(prompts=("a",), compare=0)).codec
    tiled = teacher_from_pipeline(pipeline, Options(prompts=("a",), compare=0, vae_tiling=True)).codec
    assert isinstance(tiled, VAECodec) and isinstance(plain, VAECodec) and tiled.config()["tiling"] is True
    x, sizes = torch.randn(1, 4, 24, 24), list[int]()  # the VAE's own tile is 8 x 8 latents
    tiled.vae.decoder.register_forward_hook(lambda module, args, output: sizes.append(args[0].shape[-1]))
    images = tiled.decode(x)
    assert max(sizes) <= 8 and len(sizes) > 9 and images.shape == plain.decode(x).shape
    assert sizes[-1] == 24  # what decodes without tiles is as it was
    assert torch.equal(tiled.pixels(x), plain.pixels(x))
    with pytest.raises(UserError, match="teacher.options.vae_tiling: found true, expected false: this pipeline has no"):
        teacher_from_pipeline(
            diffusers.DDPMPipeline(tiny.unet_2d(), diffusers.DDPMScheduler()), Options(vae_tiling=True, compare=0)
        )
