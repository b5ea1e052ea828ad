"""Every weight has one name in the original layout, and diffusers' own converters take all of them back."""

import sys
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from diffusers.loaders import single_file_utils
from torch import Tensor, nn

from unistep.errors import UserError
from unistep.export.comfy.names import original_clip, original_open_clip, original_unet, original_vae, renamed
from unistep.export.comfy.originals import CLIP_H, ORIGINALS, original_of, require_settings

sys.path.insert(0, str(Path(__file__).parent))
from comfy_students import SD1, SD2, SDXL, UNET, open_clip, tiny, vae


def require_same(found: dict[str, Tensor], model: nn.Module) -> None:
    expected = model.state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_linear_projection": True, "cross_attention_dim": 24, "layers_per_block": 2},
        {"use_linear_projection": True, "transformer_layers_per_block": (1, 2), "addition_embed_type": "text_time",
         "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 48},
    ],
)  # fmt: skip
def test_unets_come_back(changes: dict[str, Any]) -> None:
    unet = tiny.unet(**(UNET | changes))
    state = unet.state_dict()
    found = original_unet(state, unet.config)
    assert len(found) == len(state)
    named = {f"model.diffusion_model.{name}": value for name, value in found.items()}
    require_same(single_file_utils.convert_ldm_unet_checkpoint(named, dict(unet.config)), unet)


def test_vaes_come_back() -> None:
    model = vae()
    found = original_vae(model.state_dict(), model.config)
    assert found["encoder.mid.attn_1.q.weight"].shape == (8, 8, 1, 1) and len(found) == len(model.state_dict())
    named = {f"first_stage_model.{name}": value for name, value in found.items()}
    require_same(single_file_utils.convert_ldm_vae_checkpoint(named, dict(model.config)), model)


@pytest.mark.parametrize("kind", [transformers.CLIPTextModel, transformers.CLIPTextModelWithProjection])
def test_open_clip_comes_back(kind: Any) -> None:
    model = open_clip(kind)
    found = original_open_clip(model.state_dict())
    assert found["transformer.resblocks.1.attn.in_proj_weight"].shape == (72, 24)
    named = {f"p.{name}": value for name, value in found.items()}
    back = single_file_utils.convert_open_clip_checkpoint(model, named, prefix="p.")
    plain = kind is transformers.CLIPTextModel  # whose names have no `text_model.`
    require_same({name.removeprefix("text_model.") if plain else name: value for name, value in back.items()}, model)


def test_clip_has_one_form_whichever_transformers_wrote_it() -> None:
    state = tiny.clip().state_dict()
    wrapped = {f"text_model.{name}": value for name, value in state.items()}
    found = original_clip(state)
    assert list(found) == list(original_clip(wrapped))
    assert "transformer.text_model.encoder.layers.1.mlp.fc2.bias" in found


def test_a_weight_without_a_place_is_named() -> None:
    with pytest.raises(UserError, match=r"^time_embedding2\.weight: the original layout has no such weight"):
        renamed(["time_embedding2.weight"], [])


@pytest.mark.parametrize(("row", "count"), [(SD1, 686), (SD2, 686), (SDXL, 1680)])
def test_the_published_unets_have_as_many_keys_as_their_files(row: Any, count: int) -> None:
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(**row.unet)
    assert original_of(row.pipeline, unet) is row
    found = original_unet(unet.state_dict(), unet.config)
    assert len(found) == count and found["input_blocks.0.0.weight"].shape == (320, 4, 3, 3)
    last = "output_blocks.8.0.skip_connection.weight" if row is SDXL else "output_blocks.11.0.skip_connection.weight"
    assert found[last].shape == (320, 640, 1, 1)
    upsampled = "output_blocks.2.2.conv.weight" if row is SDXL else "output_blocks.2.1.conv.weight"
    assert found[upsampled].shape == (1280, 1280, 3, 3)


def test_the_published_vae_and_text_encoder_have_as_many_keys_as_their_files() -> None:
    with torch.device("meta"):
        model = diffusers.AutoencoderKL(**SD1.vae)
        text = transformers.CLIPTextModel(transformers.CLIPTextConfig(**CLIP_H))
    require_settings("vae", model, SD1.vae, SD1.name)
    assert len(original_vae(model.state_dict(), model.config)) == 248
    assert len(original_open_clip(text.state_dict())) == 23 * 12 + 4  # of 24 blocks, the last of which is not used


def test_other_shapes_are_refused() -> None:
    with pytest.raises(UserError, match=r"^unet\.cross_attention_dim: found 16, expected 768 \(Stable Diffusion 1\)"):
        original_of("StableDiffusionPipeline", tiny.unet())
    with torch.device("meta"):
        narrow = diffusers.UNet2DConditionModel(cross_attention_dim=768, block_out_channels=(32, 64, 64, 64))
        heads = diffusers.UNet2DConditionModel(**(dict(SD2.unet) | {"attention_head_dim": 8}))
    with pytest.raises(
        UserError, match=r"^unet\.block_out_channels: found \(32, 64, 64, 64\), expected \(320, 640, 1280"
    ):
        original_of("StableDiffusionPipeline", narrow)
    with pytest.raises(UserError, match=r"^unet\.attention_head_dim: found \(8, 8, 8, 8\), expected \(5, 10, 20, 20\)"):
        original_of("StableDiffusionPipeline", heads)
    assert len({(row.pipeline, row.unet["cross_attention_dim"]) for row in ORIGINALS}) == 3
