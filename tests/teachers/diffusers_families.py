"""The families that read text or classes: how to build each, and how its network and its pipeline are called by hand."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import tiny_pipelines as tiny
import torch
from torch import Tensor

from unistep.process import FlowProcess, NoiseProcess

PROMPTS = ("a red fox", "two small boats on a lake", "snow")
SMALL = {"size": (16, 16)}


@dataclass(frozen=True)
class Case:
    """One family.

    build: a tiny pipeline.
    options: of the teacher, beside its prompts.
    raw: (pipeline, x_t, t, prompts) -> the network's own output, called as the pipeline's code calls it.
    guidance: w -> the arguments that make the pipeline's call guide with standard scale w; None where it cannot.
    """

    build: Callable[[], Any]
    raw: Callable[[Any, Tensor, Tensor, list[str]], Tensor]
    options: Mapping[str, Any] = field(default_factory=dict)
    guidance: Callable[[float], dict[str, Any]] | None = lambda w: {"guidance_scale": w}


def sd(pipeline: Any, x: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    text, _ = pipeline.encode_prompt(prompts, "cpu", 1, False)
    return pipeline.unet(x, t, encoder_hidden_states=text).sample


def sdxl(pipeline: Any, x: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    text, _, pooled, _ = pipeline.encode_prompt(prompts, do_classifier_free_guidance=False)
    ids = torch.tensor([[16.0, 16.0, 0, 0, 16, 16]]).repeat(len(x), 1)
    added = {"text_embeds": pooled, "time_ids": ids}
    return pipeline.unet(x, t, encoder_hidden_states=text, added_cond_kwargs=added).sample


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


CASES: dict[str, Case] = {
    "sd15": Case(tiny.sd15, sd),
    "sd21": Case(tiny.sd21, sd),
    "sdxl": Case(tiny.sdxl, sdxl),
    "dit": Case(tiny.dit, dit),
    "pixart": Case(tiny.pixart, pixart),
    "sd3": Case(tiny.sd3, sd3),
    "flux": Case(tiny.flux, flux, SMALL, lambda w: {"true_cfg_scale": w, "negative_prompt": ["", ""]}),
    "flux-schnell": Case(
        lambda: tiny.flux(False), flux, SMALL, lambda w: {"true_cfg_scale": w, "negative_prompt": [""] * 2}
    ),
}


def by_hand(scheduler: Any, process: NoiseProcess, raw: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """x_0 of a prediction by the scheduler's own numbers."""
    wide = (-1, *[1] * (x_t.ndim - 1))
    if isinstance(process, FlowProcess):
        return x_t - t.reshape(wide) * raw
    abar = scheduler.alphas_cumprod[t.long()]
    alpha, sigma = abar.sqrt().reshape(wide), (1 - abar).sqrt().reshape(wide)
    eps = (x_t - sigma * raw) / alpha
    return {"epsilon": eps, "v_prediction": alpha * x_t - sigma * raw}[scheduler.config.prediction_type]
