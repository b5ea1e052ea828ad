"""Names of layers in the original single-file checkpoints of Stable Diffusion, beside those of diffusers.

The layers are the same. The original U-Net counts its layers through all resolutions (`input_blocks.N`,
`output_blocks.N`), diffusers within each (`down_blocks.LEVEL.resnets.N`); the original VAE counts the decoder's levels
from the finest. OpenCLIP's text encoder fuses query, key and value.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unistep.errors import UserError


class Layer(NamedTuple):
    """A layer's name in diffusers, in the original, and the names of its parts where they differ."""

    ours: str
    theirs: str
    parts: Mapping[str, str] = {}


UNET_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
TWO_LINEAR = {"linear_1": "0", "linear_2": "2"}
UNET_ENDS = (
    Layer("time_embedding", "time_embed", TWO_LINEAR),
    Layer("add_embedding", "label_emb.0", TWO_LINEAR),
    Layer("conv_in", "input_blocks.0.0"),
    Layer("conv_norm_out", "out.0"),
    Layer("conv_out", "out.2"),
    Layer("mid_block.resnets.0", "middle_block.0", UNET_RESNET),
    Layer("mid_block.attentions.0", "middle_block.1"),
    Layer("mid_block.resnets.1", "middle_block.2", UNET_RESNET),
)
VAE_RESNET = {"conv_shortcut": "nin_shortcut"}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
CONVOLUTIONS = (".q.weight", ".k.weight", ".v.weight", ".proj_out.weight")  # 1x1 there, matrices in diffusers
OPEN_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight", "final_layer_norm.bias": "ln_final.bias",
    "text_projection.weight": "text_projection",
}  # fmt: skip
OPEN_CLIP_BLOCK = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}  # fmt: skip
FUSED = ("q_proj", "k_proj", "v_proj")  # rows of attn.in_proj, in this order


def unet_layers(config: Mapping[str, Any]) -> Iterator[Layer]:
    """Of a `UNet2DConditionModel` with this configuration."""
    yield from UNET_ENDS
    levels, count = len(config["block_out_channels"]), config["layers_per_block"]
    for level in range(levels):
        for i in range(count):
            block = f"input_blocks.{1 + level * (count + 1) + i}"
            yield Layer(f"down_blocks.{level}.resnets.{i}", f"{block}.0", UNET_RESNET)
            yield Layer(f"down_blocks.{level}.attentions.{i}", f"{block}.1")
        yield Layer(f"down_blocks.{level}.downsamplers.0.conv", f"input_blocks.{(level + 1) * (count + 1)}.0.op")
        for i in range(count + 1):
            block = f"output_blocks.{level * (count + 1) + i}"
            yield Layer(f"up_blocks.{level}.resnets.{i}", f"{block}.0", UNET_RESNET)
            yield Layer(f"up_blocks.{level}.attentions.{i}", f"{block}.1")
        place = 2 if "CrossAttn" in config["up_block_types"][level] else 1  # after the attention, where there is one
        yield Layer(f"up_blocks.{level}.upsamplers.0.conv", f"output_blocks.{level * (count + 1) + count}.{place}.conv")


def vae_layers(config: Mapping[str, Any]) -> Iterator[Layer]:
    """Of an `AutoencoderKL` with this configuration."""
    levels, count = len(config["block_out_channels"]), config["layers_per_block"]
    yield from (Layer("quant_conv", "quant_conv"), Layer("post_quant_conv", "post_quant_conv"))
    for half in ("encoder", "decoder"):
        yield from (Layer(f"{half}.conv_in", f"{half}.conv_in"), Layer(f"{half}.conv_out", f"{half}.conv_out"))
        yield Layer(f"{half}.conv_norm_out", f"{half}.norm_out")
        yield Layer(f"{half}.mid_block.attentions.0", f"{half}.mid.attn_1", VAE_ATTENTION)
        for i in range(2):
            yield Layer(f"{half}.mid_block.resnets.{i}", f"{half}.mid.block_{i + 1}", VAE_RESNET)
    for level in range(levels):
        down, up, finest = f"encoder.down_blocks.{level}", f"decoder.up_blocks.{level}", levels - 1 - level
        for i in range(count + 1):  # the encoder has one layer less
            yield Layer(f"{down}.resnets.{i}", f"encoder.down.{level}.block.{i}", VAE_RESNET)
            yield Layer(f"{up}.resnets.{i}", f"decoder.up.{finest}.block.{i}", VAE_RESNET)
        yield Layer(f"{down}.downsamplers.0.conv", f"encoder.down.{level}.downsample.conv")
        yield Layer(f"{up}.upsamplers.0.conv", f"decoder.up.{finest}.upsample.conv")


def renamed(names: Iterable[str], layers: Iterable[Layer]) -> dict[str, str]:
    """Name in diffusers -> original name, for all parameters.

    Raises:
        UserError: for a parameter that the original layout has no place for.
    """
    known, result = tuple(layers), {}
    for name in names:
        layer = next((layer for layer in known if name.startswith(f"{layer.ours}.")), None)
        if layer is None:
            raise UserError(f"{name}: the original layout has no such weight; export with --to diffusers")
        part, _, kind = name.removeprefix(f"{layer.ours}.").rpartition(".")
        result[name] = ".".join(word for word in (layer.theirs, layer.parts.get(part, part), kind) if word)
    return result


def original_unet(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The U-Net's weights by their names after `model.diffusion_model.`."""
    names = renamed(state, unet_layers(config))
    return {names[name]: value for name, value in state.items()}


def original_vae(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The VAE's weights by their names after `first_stage_model.`; its attention projects by 1x1 convolutions."""
    names = renamed(state, vae_layers(config))
    found = {names[name]: value for name, value in state.items()}
    return {
        name: value[..., None, None] if ".attn_1." in name and name.endswith(CONVOLUTIONS) else value
        for name, value in found.items()
    }


def original_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CLIP's text encoder by its names after `transformer.`; transformers wrote `text_model.` before 5.6 only."""
    return {f"transformer.text_model.{name.removeprefix('text_model.')}": value for name, value in state.items()}


def original_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenCLIP's text encoder by its names after `model.`: one matrix for query, key and value, x text_projection."""
    plain = {name.removeprefix("text_model."): value for name, value in state.items()}
    found = {OPEN_CLIP[name]: value for name, value in plain.items() if name in OPEN_CLIP}
    if "text_projection" in found:
        found["text_projection"] = found["text_projection"].T  # x W there, W x in torch.nn.Linear
    for name in (name for name in plain if name not in OPEN_CLIP):
        _, _, index, *middle, kind = name.split(".")  # encoder.layers.N.PART.weight
        block, part = f"transformer.resblocks.{index}", ".".join(middle)
        if part == "self_attn.q_proj":
            rows = [plain[name.replace("q_proj", projection)] for projection in FUSED]
            found[f"{block}.attn.in_proj_{kind}"] = torch.cat(rows)
        elif part in OPEN_CLIP_BLOCK:
            found[f"{block}.{OPEN_CLIP_BLOCK[part]}.{kind}"] = plain[name]
    return found
