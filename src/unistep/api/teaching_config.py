"""What a teacher in the making is conditioned on, and the configuration that is stored beside its weights."""

from typing import Any

import torch
from torch import Tensor

from unistep.api.images import labels_for
from unistep.data import ImageDataset
from unistep.errors import UserError
from unistep.recipes.schema import TeachRecipe
from unistep.recipes.sections import TextConfig
from unistep.teachers.codecs import PixelCodec
from unistep.teachers.conditioners import LabelConditioner
from unistep.teachers.diffusers.captions import Captions, TextEncoding
from unistep.teachers.diffusers.families import FAMILIES
from unistep.teachers.teacher import Conditioner
from unistep.training.distributed import on_main

TEXT_ONLY = tuple(name for name, family in FAMILIES.items() if family.encoded == ("text", "null text"))


def conditioning(
    recipe: TeachRecipe, data: ImageDataset, device: torch.device
) -> tuple[Conditioner | None, Tensor | None]:
    """The conditioner, and for each image its label (or the index of its caption), int64 [n]; None without conditions.

    Raises:
        UserError: if the captions cannot be encoded.
    """
    conditioner = conditioner_of(recipe, data, device)
    return conditioner, None if conditioner is None else labels_for(data, conditioner)


def conditioner_of(recipe: TeachRecipe, data: ImageDataset, device: torch.device) -> Conditioner | None:
    """Captions or classes, as the recipe has it; None without conditions."""
    if recipe.text is not None:
        return captions_of(recipe.text, data.captions, device)
    label_dim = recipe.network.get("label_dim", 0)
    if isinstance(label_dim, int) and label_dim > 0 and data.num_classes > 0:  # else `own_network` says what is wrong
        return LabelConditioner(data.num_classes, data.names)
    return None


def captions_of(text: TextConfig, captions: tuple[str, ...], device: torch.device) -> Captions:
    """Each different caption once, in the order of the images, encoded by one rank for all."""
    prompts = tuple(dict.fromkeys(captions))
    encoding = TextEncoding.of(text.encoder, text.tokens)
    on_main(lambda: Captions.encoded(encoding, prompts, device))
    return Captions.encoded(encoding, prompts, device)


def teacher_config(recipe: TeachRecipe, data: ImageDataset, conditioner: Conditioner | None) -> dict[str, Any]:
    """What `save_denoiser` stores beside the weights.

    Raises:
        UserError: if the network does not fit the images, or the conditions.
    """
    shape = data.shape
    if shape[1] != shape[2]:
        raise UserError(
            f"data.size: found images of {shape[1]} x {shape[2]}, expected square ones; set it, or pad them"
        )
    foreign = recipe.network.get("type") == "diffusers"
    if recipe.text is not None and not foreign:
        raise UserError(f"network.type: found {recipe.network.get('type')!r}, expected 'diffusers', which reads text")
    seen = diffusers_network(recipe, shape, conditioner) if foreign else own_network(recipe, data)
    if recipe.guidance != 1 and conditioner is None:
        raise UserError(f"guidance: found {recipe.guidance:g}, expected 1: network.label_dim is 0 and there is no text")
    return {
        **seen,
        "process": recipe.process,
        "shape": list(shape),
        "conditioner": conditioner.config() if conditioner is not None else None,
        "codec": PixelCodec().config(),
    }


def own_network(recipe: TeachRecipe, data: ImageDataset) -> dict[str, Any]:
    """One of unistep's networks, whose sizes must be the images'."""
    network, (channels, height, _) = recipe.network, data.shape
    for key, found, wanted in (
        ("img_resolution", network.get("img_resolution"), height),
        ("img_channels", network.get("img_channels"), channels),
        ("label_dim", network.get("label_dim", 0), data.num_classes),
    ):
        if found != wanted and not (key == "label_dim" and found == 0):
            raise UserError(f"network.{key}: found {found!r}, expected {wanted}, as the images of data have it")
    return {"network": network, "sigma_data": recipe.sigma_data}


def diffusers_network(
    recipe: TeachRecipe, shape: tuple[int, int, int], conditioner: Conditioner | None
) -> dict[str, Any]:
    """A network of diffusers under EDM's preconditioning: `class`, `config` and the side of a `patch` of pixels."""
    network = {"patch": 1, "config": {}, **recipe.network}
    patch, kind, config = network.pop("patch"), network.get("class"), network["config"]
    if kind not in TEXT_ONLY or not isinstance(conditioner, Captions):
        raise UserError(
            f"network.class: found {kind!r}, expected {' or '.join(TEXT_ONLY)} with captions (text, data.caption); "
            "classes are for networks of unistep's own"
        )
    channels, side, _ = shape
    if not isinstance(patch, int) or patch < 1 or side % patch:
        raise UserError(f"network.patch: found {patch!r}, expected a divisor of {side}, the side of the images")
    wanted = {
        "in_channels": channels * patch**2,
        "out_channels": channels * patch**2,
        "sample_size": side // patch,
        "cross_attention_dim": conditioner.embeddings.null["text"].shape[-1],
    }
    for key, value in wanted.items():
        if config.get(key) != value:
            raise UserError(
                f"network.config.{key}: found {config.get(key)!r}, expected {value}: the images, the patch or the "
                "encoder say so"
            )
    reading = {"prediction": "F", "sign": 1.0, "sigma_data": recipe.sigma_data, "constants": {}, "null_label": None}
    return {"network": network, "reading": reading | ({"patch": patch} if patch > 1 else {})}
