"""Models whose single-file checkpoints ComfyUI opens: it tells them apart by their shapes, so they must be these.

Settings are those of the published configurations, as far as they differ from the defaults of diffusers' classes. What
ComfyUI does not read from the file (heads, scale of the latents, activation, padding) it takes to be as here.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unistep.errors import UserError

UNSEEN = ("sample_size", "dropout", "upcast_attention", "force_upcast")  # change no weight and no result in float32
BY_LEVEL = ("attention_head_dim", "transformer_layers_per_block")  # one number stands for all levels
INSTEAD = "ComfyUI knows checkpoints by these shapes; export with --to diffusers"

CLIP_L = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "hidden_act": "quick_gelu", "vocab_size": 49408, "max_position_embeddings": 77,
}  # fmt: skip
CLIP_H = CLIP_L | {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16,
    "hidden_act": "gelu",
}  # fmt: skip
CLIP_G = CLIP_L | {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
    "hidden_act": "gelu", "projection_dim": 1280,
}  # fmt: skip
END = 49407  # of a text
VAE = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip


@dataclass(frozen=True)
class Encoder:
    """A text encoder in a checkpoint.

    Attributes:
        prefix: of its keys.
        open_clip: whether its layers have OpenCLIP's names, else CLIP's.
        config: its published settings.
        pad: the token that fills up prompts.
    """

    prefix: str
    open_clip: bool
    config: Mapping[str, Any]
    pad: int


@dataclass(frozen=True)
class Original:
    """A model with a published single-file layout.

    Attributes:
        name: readable.
        pipeline: its class in diffusers.
        unet: published settings that are no defaults.
        vae: the same.
        text: component of the pipeline -> where it is in the checkpoint.
    """

    name: str
    pipeline: str
    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    text: Mapping[str, Encoder]


ORIGINALS = (
    Original(
        "Stable Diffusion 1", "StableDiffusionPipeline", {"cross_attention_dim": 768}, VAE,
        {"text_encoder": Encoder("cond_stage_model.", False, CLIP_L, END)},
    ),
    Original(
        "Stable Diffusion 2", "StableDiffusionPipeline",
        {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True}, VAE,
        {"text_encoder": Encoder("cond_stage_model.model.", True, CLIP_H, 0)},
    ),
    Original(
        "Stable Diffusion XL", "StableDiffusionXLPipeline",
        {
            "cross_attention_dim": 2048, "attention_head_dim": (5, 10, 20), "use_linear_projection": True,
            "block_out_channels": (320, 640, 1280), "transformer_layers_per_block": (1, 2, 10),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        VAE | {"scaling_factor": 0.13025},
        {"text_encoder": Encoder("conditioner.embedders.0.", False, CLIP_L, END),
         "text_encoder_2": Encoder("conditioner.embedders.1.model.", True, CLIP_G, 0)},
    ),
)  # fmt: skip


def original_of(pipeline: str, unet: Any) -> Original:
    """The row of a U-Net that ComfyUI would take it for.

    Args:
        pipeline: class of its pipeline.
        unet: a `UNet2DConditionModel`.

    Raises:
        UserError: naming the setting that no row has.
    """
    rows = [row for row in ORIGINALS if row.pipeline == pipeline]
    width = unet.config["cross_attention_dim"]
    for row in rows:
        if row.unet["cross_attention_dim"] == width:
            require_settings("unet", unet, row.unet, row.name)
            return row
    known = ", ".join(f"{row.unet['cross_attention_dim']} ({row.name})" for row in rows)
    raise UserError(f"unet.cross_attention_dim: found {width}, expected {known}: {INSTEAD}")


def require_settings(component: str, model: Any, published: Mapping[str, Any], name: str) -> None:
    """A model of diffusers must have the published settings, and its class's defaults beside them.

    Raises:
        UserError: naming the first setting that differs.
    """
    parameters = inspect.signature(type(model).__init__).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    expected, found = comparable({**defaults, **published}), comparable({**defaults, **model.config})
    require_equal(component, found, {key: value for key, value in expected.items() if key not in UNSEEN}, name)


def require_encoder(component: str, model: Any, tokenizer: Any, encoder: Encoder, name: str) -> None:
    """A text encoder of transformers must have the published settings, and its prompts the published padding.

    Raises:
        UserError: naming the first setting that differs.
    """
    require_equal(component, model.config.to_dict(), encoder.config, name)
    padding = {"pad_token_id": tokenizer.pad_token_id}
    require_equal(tokenizer_of(component), padding, {"pad_token_id": encoder.pad}, name)


def tokenizer_of(component: str) -> str:
    """Name of the tokenizer of a text encoder in its pipeline."""
    return component.replace("text_encoder", "tokenizer")


def require_equal(component: str, found: Mapping[str, Any], expected: Mapping[str, Any], name: str) -> None:
    """Raises UserError naming the first setting that differs from the expected one."""
    for key, value in expected.items():
        if found.get(key) != value:
            raise UserError(f"{component}.{key}: found {found.get(key)!r}, expected {value!r} as in {name}: {INSTEAD}")


def comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings written in one way: tuples, numbers by level, and heads under the name that diffusers reads them by."""
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
    if plain.pop("num_attention_heads", None) is not None:
        plain["attention_head_dim"] = config["num_attention_heads"]
    levels = len(plain["block_out_channels"])
    return {
        key: (value,) * levels if key in BY_LEVEL and isinstance(value, int) else value for key, value in plain.items()
    }
