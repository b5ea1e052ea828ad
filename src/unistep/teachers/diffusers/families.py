"""The families of diffusers networks: one small table of what their configurations do not say."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

import unistep.teachers.diffusers.calls as calls
from unistep.errors import UserError
from unistep.teachers.diffusers.calls import Named

Clock = Literal["timestep", "noise", "data"]
"""What a network is told of the time: the scheduler's timestep, the share of noise t, or that of data 1 - t."""

NOT_GIVEN = {
    "time_cond_proj_dim": "an embedded guidance scale",
    "image_dim": "an image",
    "use_additional_conditions": "resolution and aspect ratio",
}
UNET_LAYERS = (
    *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
    *("conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv"),
)
TRANSFORMER_LAYERS = (
    *("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
    *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp"),  # FLUX.1: proj_mlp
    *("ffn.net.0.proj", "ffn.net.2", "conv_inverted", "conv_point"),  # Wan, Sana
    *("feed_forward.linear_1", "feed_forward.linear_2", "feed_forward.linear_3"),  # Lumina2
    *("feed_forward.w1", "feed_forward.w2", "feed_forward.w3"),  # Z-Image
    *("img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2"),  # Qwen-Image
)
CFG = ("text", "null text")
CFG_POOLED = ("text", "null text", "pooled", "null pooled")
CFG_MASKED = ("text", "mask", "null text", "null mask")


@dataclass(frozen=True)
class Family:
    """How networks of one class are called and what their pipeline's `encode_prompt` returns.

    Attributes:
        call: (network, x, time, conditions by name) -> the prediction, [b, *dims].
        encoded: names of what `encode_prompt` returns, in order; "null ..." belongs to "no condition", "" is unused.
            Empty where no text is read.
        clock: what `time` is for rectified flow; for the other processes it is their own.
        sign: -1 where the network predicts the negative of what the scheduler is given.
        packing: latent channels that a network sees as one, 2x2 patches of them: 4 where the pipeline packs.
        null_prompt: the prompt of "no condition", for pipelines whose `encode_prompt` makes none.
        idle: beginnings of names in the last block on which the prediction does not depend: they never learn.
        no_guidance: the guidance_scale of the pipeline's call that is off: 1 (standard w), or 0 where it counts w - 1.
        wide_latents: whether the pipeline keeps its latents in float32, whatever the network's type.
        lora: what the names of layers end with that an adapter is put on where a recipe does not say.
    """

    call: Callable[[nn.Module, Tensor, Tensor, Named], Tensor]
    encoded: tuple[str, ...] = ()
    clock: Clock = "timestep"
    sign: float = 1.0
    packing: int = 1
    null_prompt: str = ""
    idle: tuple[str, ...] = ()
    no_guidance: float = 1.0
    wide_latents: bool = False
    lora: tuple[str, ...] = TRANSFORMER_LAYERS


FAMILIES: Mapping[str, Family] = {
    "UNet2DModel": Family(calls.unet_2d, lora=UNET_LAYERS),
    "UNet2DConditionModel": Family(calls.unet, CFG, lora=UNET_LAYERS),
    "UNet2DConditionModel + text_time": Family(calls.sdxl, CFG_POOLED, lora=UNET_LAYERS),
    "DiTTransformer2DModel": Family(calls.dit),
    "PixArtTransformer2DModel": Family(calls.pixart, CFG_MASKED),
    "SD3Transformer2DModel": Family(calls.sd3, CFG_POOLED),
    "FluxTransformer2DModel": Family(calls.flux, ("text", "pooled", ""), clock="noise", packing=4),
    "SanaTransformer2DModel": Family(calls.sana, CFG_MASKED, wide_latents=True),
    "Lumina2Transformer2DModel": Family(calls.lumina2, CFG_MASKED, clock="data", sign=-1.0),
    "ZImageTransformer2DModel": Family(calls.z_image, CFG, clock="data", sign=-1.0, no_guidance=0.0, wide_latents=True),
    "WanTransformer3DModel": Family(calls.wan, CFG, wide_latents=True),
    "QwenImageTransformer2DModel": Family(
        calls.qwen_image,
        ("text", "mask"),
        clock="noise",
        packing=4,
        null_prompt=" ",
        idle=("attn.to_add_out.", "txt_mlp."),
    ),
}


def family_of(class_name: str, config: Mapping[str, Any]) -> Family:
    """The family of a network, by the name of its class and its configuration.

    Raises:
        UserError: for a class that is not in the table, or a network that needs an input nobody gives.
    """
    added = config.get("addition_embed_type")
    name = class_name if added is None else f"{class_name} + {added}"
    if name not in FAMILIES:
        raise UserError(
            f"network: found {name}, expected one of {', '.join(FAMILIES)}; give another network to "
            "teacher_from_module with its process and prediction"
        )
    for setting, what in NOT_GIVEN.items():
        if config.get(setting):
            raise UserError(f"network.{setting}: found {config[setting]}, expected none: it needs {what}")
    return FAMILIES[name]
