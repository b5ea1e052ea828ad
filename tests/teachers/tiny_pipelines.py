"""Pipelines of diffusers' real classes at tiny random size, built from configuration: nothing is fetched."""

from typing import Any

import diffusers
import torch
import transformers
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn


def randomised(network: nn.Module, seed: int = 0) -> Any:
    """Weights of which none is zero, so that every part of a network matters; the same whoever asks."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(0.2 * torch.randn(p.shape, generator=rng) / max([1, *p.shape[-1:]]) ** 0.5 + (p.ndim == 1))
    return network.eval()


def unet_2d(**changes: Any) -> Any:
    config = {
        "sample_size": 8, "in_channels": 3, "out_channels": 3, "layers_per_block": 1, "block_out_channels": (8, 16),
        "norm_num_groups": 4, "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "attention_head_dim": 4,
    }  # fmt: skip
    return randomised(diffusers.UNet2DModel(**(config | changes)))


# ------------------------------------------------------------------------------------------------------------- text


def bytes_vocabulary() -> list[str]:
    """The characters that byte-level tokenizers write bytes as."""
    return sorted(ByteLevel.alphabet())


def clip_tokenizer() -> Any:
    letters = bytes_vocabulary()
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return transformers.CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[], model_max_length=77)


def clip_config(**changes: Any) -> Any:
    config = {
        "vocab_size": 514, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "projection_dim": 16,
        "num_attention_heads": 2, "max_position_embeddings": 77, "bos_token_id": 512, "eos_token_id": 513,
        "pad_token_id": 513, "hidden_act": "gelu",
    }  # fmt: skip
    return transformers.CLIPTextConfig(**(config | changes))


def clip(projection: bool = False, seed: int = 1) -> Any:
    kind = transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel
    return randomised(kind(clip_config()), seed)


def t5_tokenizer() -> Any:
    special = ["<pad>", "</s>", "<unk>"]
    letters = [chr(i) for i in range(33, 127)]
    vocabulary = [(word, 0.0) for word in special] + [("\u2581", -2.0)] + [(letter, -3.0) for letter in letters]
    return transformers.T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512)


def t5(seed: int = 3) -> Any:
    config = transformers.T5Config(
        vocab_size=98, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )  # fmt: skip
    return randomised(transformers.T5EncoderModel(config), seed)


# ----------------------------------------------------------------------------------------------------------- latents


def vae(**changes: Any) -> Any:
    config = {
        "block_out_channels": (4, 8), "norm_num_groups": 2, "latent_channels": 4, "sample_size": 16,
        "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
    }  # fmt: skip
    return randomised(diffusers.AutoencoderKL(**(config | changes)), 9)


def unet(**changes: Any) -> Any:
    config = {
        "sample_size": 8, "layers_per_block": 1, "block_out_channels": (8, 16), "cross_attention_dim": 16,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "attention_head_dim": 4, "norm_num_groups": 4,
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    return randomised(diffusers.UNet2DConditionModel(**(config | changes)))


LATENT = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def stable_diffusion(scheduler: Any, **changes: Any) -> Any:
    return diffusers.StableDiffusionPipeline(
        vae=vae(), text_encoder=clip(), tokenizer=clip_tokenizer(), unet=unet(**changes), scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def sd15() -> Any:
    return stable_diffusion(diffusers.PNDMScheduler(**LATENT, steps_offset=1, skip_prk_steps=True))


def sd21() -> Any:
    scheduler = diffusers.DDIMScheduler(**LATENT, prediction_type="v_prediction", clip_sample=False, steps_offset=1)
    return stable_diffusion(scheduler, use_linear_projection=True)


def sdxl(scheduler: Any = None, **vae_changes: Any) -> Any:
    network = unet(
        cross_attention_dim=32, addition_embed_type="text_time", addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=16 + 6 * 4,
    )  # fmt: skip
    return diffusers.StableDiffusionXLPipeline(
        vae=vae(scaling_factor=0.13025, **vae_changes), text_encoder=clip(), text_encoder_2=clip(True, 2),
        tokenizer=clip_tokenizer(), tokenizer_2=clip_tokenizer(), unet=network,
        scheduler=scheduler or diffusers.EulerDiscreteScheduler(**LATENT), add_watermarker=False,
    )  # fmt: skip


def playground() -> Any:
    """SDXL's classes with EDM's preconditioning and latents normalised by channel."""
    mean, std = [0.1, -0.2, 0.3, 0.0], [0.9, 1.1, 1.2, 0.8]
    return sdxl(diffusers.EDMDPMSolverMultistepScheduler(), latents_mean=mean, latents_std=std)


def dit() -> Any:
    network = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=1, sample_size=8,
        norm_num_groups=4, num_embeds_ada_norm=1000,
    )  # fmt: skip
    names = {i: f"class {i}, kind {i}" for i in range(1000)}
    return diffusers.DiTPipeline(randomised(network), vae(), diffusers.DDIMScheduler(), names)


def pixart() -> Any:
    network = diffusers.PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=1, sample_size=8,
        norm_num_groups=4, cross_attention_dim=16, caption_channels=16, use_additional_conditions=False,
    )  # fmt: skip
    scheduler = diffusers.DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="linear")
    return diffusers.PixArtSigmaPipeline(t5_tokenizer(), t5(), vae(), randomised(network), scheduler)


def sd3() -> Any:
    network = diffusers.SD3Transformer2DModel(
        sample_size=8, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=32, pos_embed_max_size=8,
    )  # fmt: skip
    config = transformers.T5Config(
        vocab_size=98, d_model=32, d_kv=8, d_ff=16, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu"
    )
    return diffusers.StableDiffusion3Pipeline(
        transformer=randomised(network), scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(scaling_factor=1.5305, shift_factor=0.0609), text_encoder=clip(True, 1), tokenizer=clip_tokenizer(),
        text_encoder_2=clip(True, 2), tokenizer_2=clip_tokenizer(), tokenizer_3=t5_tokenizer(),
        text_encoder_3=randomised(transformers.T5EncoderModel(config), 3),
    )  # fmt: skip


def flux(guidance_embeds: bool = True) -> Any:
    network = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=16, guidance_embeds=guidance_embeds, axes_dims_rope=(2, 2, 4),
    )  # fmt: skip
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return diffusers.FluxPipeline(
        scheduler, vae(scaling_factor=0.3611, shift_factor=0.1159), clip(), clip_tokenizer(), t5(), t5_tokenizer(),
        randomised(network),
    )  # fmt: skip


# --------------------------------------------------------------------------------------- language models as encoders


def gemma_tokenizer() -> Any:
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    letters = ["\u2581", "\n", *(chr(i) for i in range(33, 127))]
    words = [*special, *letters, *(f"<0x{i:02X}>" for i in range(256))]
    return transformers.GemmaTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[], model_max_length=8192)


def gemma2() -> Any:
    config = transformers.Gemma2Config(
        vocab_size=360, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=1,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=4096, pad_token_id=0, eos_token_id=1, bos_token_id=2,
    )  # fmt: skip
    return randomised(transformers.Gemma2Model(config), 5)


def qwen_tokenizer() -> Any:
    words = [*bytes_vocabulary(), "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    chat = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "<|im_start|>assistant\n"
    )
    return transformers.Qwen2Tokenizer(
        vocab={w: i for i, w in enumerate(words)}, merges=[], model_max_length=8192, chat_template=chat
    )


QWEN = {
    "vocab_size": 260, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 2048, "bos_token_id": None, "eos_token_id": 256,
    "pad_token_id": 256,
}  # fmt: skip


def sana() -> Any:
    network = diffusers.SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=1, sample_size=8,
        num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16, caption_channels=16,
        timestep_scale=0.5,
    )  # fmt: skip
    autoencoder = diffusers.AutoencoderDC(
        latent_channels=4, attention_head_dim=4, encoder_block_out_channels=(4, 8, 8), scaling_factor=0.41407,
        decoder_block_out_channels=(4, 8, 8), encoder_layers_per_block=(1, 1, 1), decoder_layers_per_block=(1, 1, 1),
        encoder_qkv_multiscales=((), (), ()), decoder_qkv_multiscales=((), (), ()),
    )  # fmt: skip
    scheduler = diffusers.DPMSolverMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
    )
    return diffusers.SanaPipeline(gemma_tokenizer(), gemma2(), randomised(autoencoder), randomised(network), scheduler)


def lumina2() -> Any:
    network = diffusers.Lumina2Transformer2DModel(
        sample_size=8, in_channels=4, hidden_size=24, num_layers=1, num_refiner_layers=1, num_attention_heads=2,
        num_kv_heads=1, multiple_of=8, axes_dim_rope=(4, 4, 4), axes_lens=(300, 16, 16), cap_feat_dim=16,
    )  # fmt: skip
    return diffusers.Lumina2Pipeline(
        randomised(network), diffusers.FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae(block_out_channels=(2, 2, 2, 2), norm_num_groups=1, scaling_factor=0.3611, shift_factor=0.1159,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4),
        gemma2(), gemma_tokenizer(),
    )  # fmt: skip


def z_image() -> Any:
    network = diffusers.ZImageTransformer2DModel(
        in_channels=4, dim=16, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16,
        axes_dims=[4, 2, 2], axes_lens=[1024, 32, 32],
    )  # fmt: skip
    text_encoder = transformers.Qwen3Model(transformers.Qwen3Config(**QWEN, head_dim=8))
    return diffusers.ZImagePipeline(
        diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), vae(scaling_factor=0.3611, shift_factor=0.1159),
        randomised(text_encoder), qwen_tokenizer(), randomised(network),
    )  # fmt: skip


TEMPORAL = {
    "base_dim": 4, "z_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1, "latents_mean": [0.1, -0.2, 0.3, 0.0],
    "latents_std": [0.9, 1.1, 1.2, 0.8],
}  # fmt: skip


def wan() -> Any:
    network = diffusers.WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=16, freq_dim=16,
        ffn_dim=16, num_layers=1, rope_max_seq_len=32,
    )  # fmt: skip
    config = transformers.UMT5Config(
        vocab_size=98, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu"
    )
    scheduler = diffusers.UniPCMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=5.0
    )
    return diffusers.WanPipeline(
        t5_tokenizer(), randomised(transformers.UMT5EncoderModel(config)),
        randomised(diffusers.AutoencoderKLWan(**TEMPORAL)), scheduler, randomised(network),
    )  # fmt: skip


def qwen_image() -> Any:
    network = diffusers.QwenImageTransformer2DModel(
        in_channels=16, out_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=16, axes_dims_rope=(2, 2, 4),
    )  # fmt: skip
    vision = {
        "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16,
        "fullatt_block_indexes": [0],
    }  # fmt: skip
    rope = {"rope_type": "default", "type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    config = transformers.Qwen2_5_VLConfig(
        text_config={**QWEN, "rope_parameters": rope}, vision_config=vision, vision_start_token_id=257,
        vision_end_token_id=258, image_token_id=257, video_token_id=258,
    )  # fmt: skip
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02
    )
    return diffusers.QwenImagePipeline(
        scheduler, randomised(diffusers.AutoencoderKLQwenImage(**TEMPORAL)),
        randomised(transformers.Qwen2_5_VLForConditionalGeneration(config)), qwen_tokenizer(), randomised(network),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------- judges of alignment


def save_clip_model(folder: Any) -> Any:
    """A CLIP for alignment, with its tokenizer and image processor, in a folder; and the model."""
    text = clip_config().to_dict() | {"projection_dim": 16}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 32, "patch_size": 8}  # fmt: skip
    model = randomised(
        transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)), 11
    )
    model.save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)
    square = {"height": 32, "width": 32}
    kind = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)
    kind(size={"shortest_edge": 32}, crop_size=square).save_pretrained(folder)
    return model
