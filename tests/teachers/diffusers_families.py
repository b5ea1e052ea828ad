"""The families that read text or classes: how to build each, and how its network and pipeline are called by hand."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import tiny_pipelines as tiny
import torch
from torch import Tensor

from unistep.diffusion.process import EDMProcess, FlowProcess, NoiseProcess

PROMPTS = ("a red fox", "two small boats on a lake", "snow")
SMALL = {"size": (16, 16)}


@dataclass(frozen=True)
class Case:
    """One family.

    build: a tiny pipeline.
    options: of the teacher, beside its prompts.
    raw: (pipeline, x_t, t, prompts) -> the network's own output, called as the pipeline's code calls it.
    guidance: w -> the arguments that make the pipeline's call guide with standard scale w; None where it cannot.
    off: those that switch guidance off.
    """

    build: Callable[[], Any]
    raw: Callable[[Any, Tensor, Tensor, list[str]], Tensor]
    options: Mapping[str, Any] = field(default_factory=dict)
    guidance: Callable[[float], dict[str, Any]] | None = lambda w: {"guidance_scale": w}
    off: Mapping[str, Any] = field(default_factory=lambda: {"guidance_scale": 1.0})


def sd(pipeline: Any, x: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    text, _ = pipeline.encode_prompt(prompts, "cpu", 1, False)
    return pipeline.unet(x, t, encoder_hidden_states=text).sample


def sdxl(pipeline: Any, x: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    text, _, pooled, _ = pipeline.encode_prompt(prompts, do_classifier_free_guidance=False)
    ids = torch.tensor([[16.0, 16.0, 0, 0, 16, 16]]).repeat(len(x), 1)
    added = {"text_embeds": pooled, "time_ids": ids}
    return pipeline.unet(x, t, encoder_hidden_states=text, added_cond_kwargs=added).sample


def playground(pipeline: Any, x: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    c_in = pipeline.scheduler.precondition_inputs(torch.ones(len(x), 1, 1, 1), t.reshape(-1, 1, 1, 1))
    return sdxl(pipeline, c_in * x, pipeline.scheduler.precondition_noise(t), prompts)


def dit(pipeline: Any, x: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    return pipeline.transformer(x, timestep=t, class_labels=torch.arange(len(x))).sample[:, :4]


def pixart(pipeline: Any, x: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    text, mask, _, _ = pipeline.encode_prompt(prompts, False)
    added = {"resolution": None, "aspect_ratio": None}
    return pipeline.transformer(
        x, encoder_hidden_states=text, encoder_attention_mask=mask, timestep=t, added_cond_kwargs=added
    ).sample[:, :4]


def sd3(pipeline: Any, x: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    text, _, pooled, _ = pipeline.encode_prompt(prompts, None, None, do_classifier_free_guidance=False)
    return pipeline.transformer(x, timestep=1000 * t, encoder_hidden_states=text, pooled_projections=pooled).sample


def flux(pipeline: Any, x: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    text, pooled, ids = pipeline.encode_prompt(prompts)
    places = pipeline._prepare_latent_image_ids(len(x), 4, 4, "cpu", torch.float32)
    output = pipeline.transformer(
        hidden_states=pipeline._pack_latents(x, len(x), 4, 8, 8), timestep=t, pooled_projections=pooled,
        encoder_hidden_states=text, txt_ids=ids, img_ids=places,
        guidance=torch.full((len(x),), 3.5) if pipeline.transformer.config.guidance_embeds else None,
    ).sample  # fmt: skip
    return pipeline._unpack_latents(output, 16, 16, 2)


def sana(pipeline: Any, x: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    lines = inspect.signature(pipeline.__call__).parameters["complex_human_instruction"].default
    text, mask, _, _ = pipeline.encode_prompt(prompts, False, complex_human_instruction=lines)
    scaled = 1000 * t * pipeline.transformer.config.timestep_scale
    return pipeline.transformer(x, encoder_hidden_states=text, encoder_attention_mask=mask, timestep=scaled).sample


def lumina2(pipeline: Any, x: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    text, mask, _, _ = pipeline.encode_prompt(prompts, False)
    return -pipeline.transformer(x, timestep=1 - t, encoder_hidden_states=text, encoder_attention_mask=mask).sample


def z_image(pipeline: Any, x: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    texts, _ = pipeline.encode_prompt(list(prompts), do_classifier_free_guidance=False)
    return -torch.stack(pipeline.transformer(list(x.unsqueeze(2)), 1 - t, texts, return_dict=False)[0]).squeeze(2)


def wan(pipeline: Any, x: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    text, _ = pipeline.encode_prompt(prompts, do_classifier_free_guidance=False, max_sequence_length=512)
    return pipeline.transformer(x, timestep=1000 * t, encoder_hidden_states=text).sample


def qwen_image(pipeline: Any, x: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    text, mask = pipeline.encode_prompt(prompts, max_sequence_length=512)
    output = pipeline.transformer(
        pipeline._pack_latents(x, len(x), 4, 4, 4), timestep=t, encoder_hidden_states=text,
        encoder_hidden_states_mask=mask, img_shapes=[[(1, 2, 2)]] * len(x),
    ).sample  # fmt: skip
    return pipeline._unpack_latents(output, 32, 32, 8).squeeze(2)


def true_guidance(w: float) -> dict[str, Any]:
    """Guidance of pipelines whose guidance_scale is something else."""
    return {"true_cfg_scale": w, "negative_prompt": ["", ""]}


CASES: dict[str, Case] = {
    "sd15": Case(tiny.sd15, sd),
    "sd21": Case(tiny.sd21, sd),
    "sdxl": Case(tiny.sdxl, sdxl),
    "playground": Case(tiny.playground, playground),
    "dit": Case(tiny.dit, dit),
    "pixart": Case(tiny.pixart, pixart),
    "sd3": Case(tiny.sd3, sd3),
    "flux": Case(tiny.flux, flux, SMALL, true_guidance, {}),
    "flux-schnell": Case(lambda: tiny.flux(False), flux, SMALL, true_guidance, {}),
    "sana": Case(tiny.sana, sana),
    "lumina2": Case(tiny.lumina2, lumina2, guidance=lambda w: {"guidance_scale": w, "cfg_normalization": False}),
    "z-image": Case(tiny.z_image, z_image, SMALL, lambda w: {"guidance_scale": w - 1}, {"guidance_scale": 0.0}),
    "wan": Case(tiny.wan, wan, {"size": (32, 32), "frames": 5}),
    "qwen-image": Case(tiny.qwen_image, qwen_image, {"size": (32, 32)}, None, {}),
}


def by_hand(scheduler: Any, process: NoiseProcess, raw: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """x_0 of a prediction by the scheduler's own numbers."""
    wide = (-1, *[1] * (x_t.ndim - 1))
    if isinstance(process, FlowProcess):
        return x_t - t.reshape(wide) * raw
    if isinstance(process, EDMProcess):
        return scheduler.precondition_outputs(x_t, raw, t.reshape(wide))
    abar = scheduler.alphas_cumprod[t.long()]
    alpha, sigma = abar.sqrt().reshape(wide), (1 - abar).sqrt().reshape(wide)
    eps = (x_t - sigma * raw) / alpha
    return {"epsilon": eps, "v_prediction": alpha * x_t - sigma * raw}[scheduler.config.prediction_type]
