"""Stable Diffusion 1, 2 and XL at tiny size, and the rows by which the export knows them."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import diffusers
import transformers

from unistep.export.comfy.originals import ORIGINALS, Encoder, Original

sys.path.insert(0, str(Path(__file__).parent))
from students import tiny

TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "hidden_act": "gelu", "vocab_size": 514}
UNET = {"block_out_channels": (8, 16), "layers_per_block": 1, "attention_head_dim": (4, 4), "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}  # fmt: skip
VAE = {"block_out_channels": (4, 8, 8, 8), "norm_num_groups": 2, "layers_per_block": 2,
       "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}  # fmt: skip
SD1, SD2, SDXL = ORIGINALS
WIDTHS = {SD1.name: 16, SD2.name: 24, SDXL.name: 40}  # of the text that the U-Net sees
TIME_IDS = 4


def open_clip(kind: Any, **changes: Any) -> Any:
    config = tiny.clip_config(hidden_size=24, intermediate_size=32, projection_dim=24, **changes)
    return tiny.randomised(kind(config), 2)


def vae(**changes: Any) -> Any:
    return tiny.vae(**(VAE | {"sample_size": 64} | changes))


def sd1(**changes: Any) -> Any:
    scheduler = diffusers.PNDMScheduler(**tiny.LATENT, steps_offset=1, skip_prk_steps=True)
    return stable_diffusion(scheduler, tiny.clip(), cross_attention_dim=16, **changes)


def sd2(**changes: Any) -> Any:
    scheduler = diffusers.DDIMScheduler(**tiny.LATENT, prediction_type="v_prediction", clip_sample=False, **changes)
    text = open_clip(transformers.CLIPTextModel)
    return stable_diffusion(scheduler, text, cross_attention_dim=24, use_linear_projection=True)


def stable_diffusion(scheduler: Any, text_encoder: Any, **changes: Any) -> Any:
    return diffusers.StableDiffusionPipeline(
        vae=vae(), text_encoder=text_encoder, tokenizer=tiny.clip_tokenizer(), unet=tiny.unet(**(UNET | changes)),
        scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def sdxl(scheduler: Any = None) -> Any:
    network = tiny.unet(
        **UNET, cross_attention_dim=40, use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=TIME_IDS, projection_class_embeddings_input_dim=24 + 6 * TIME_IDS,
        transformer_layers_per_block=(1, 2),
    )  # fmt: skip
    return diffusers.StableDiffusionXLPipeline(
        vae=vae(scaling_factor=0.13025), text_encoder=tiny.clip(),
        text_encoder_2=open_clip(transformers.CLIPTextModelWithProjection), tokenizer=tiny.clip_tokenizer(),
        tokenizer_2=tiny.clip_tokenizer(), unet=network, add_watermarker=False,
        scheduler=scheduler or diffusers.EulerDiscreteScheduler(**tiny.LATENT),
    )  # fmt: skip


def tiny_rows(pad: int = 513) -> tuple[Original, ...]:
    """The published rows with the sizes of these pipelines; prefixes and layouts stay."""
    open_text = TEXT | {"hidden_size": 24, "intermediate_size": 32}
    extra = {"use_linear_projection": True, "transformer_layers_per_block": (1, 2), "addition_embed_type": "text_time",
             "addition_time_embed_dim": TIME_IDS, "projection_class_embeddings_input_dim": 48}  # fmt: skip
    own = {SD1.name: {}, SD2.name: {"use_linear_projection": True}, SDXL.name: extra}

    def shrunk(row: Original) -> Original:
        scaling = {"scaling_factor": row.vae["scaling_factor"]} if "scaling_factor" in row.vae else {}
        text = {
            name: Encoder(encoder.prefix, encoder.open_clip, open_text if encoder.open_clip else TEXT, pad)
            for name, encoder in row.text.items()
        }
        unet = UNET | own[row.name] | {"cross_attention_dim": WIDTHS[row.name]}
        return dataclasses.replace(row, unet=unet, vae=VAE | scaling, text=text)

    return tuple(map(shrunk, ORIGINALS))
