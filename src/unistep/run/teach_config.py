"""What a teacher in the making is conditioned on, and the configuration that is stored beside its weights."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from unistep.data import ImageDataset
from unistep.errors import Mistakes, UserError
from unistep.networks.build import NETWORKS
from unistep.recipes.schema import TeachRecipe
from unistep.recipes.sections import TextConfig
from unistep.run.training_images import labels_for, require_batch
from unistep.teachers.codecs import PixelCodec
from unistep.teachers.conditioners import LabelConditioner
from unistep.teachers.diffusers.captions import Captions, TextEncoding
from unistep.teachers.diffusers.families import FAMILIES
from unistep.teachers.teacher import Conditioner
from unistep.training.distributed import on_rank_zero

AUTO = "auto"  # a size of the network that the images decide
SHOWN = 10  # names of classes
TEXT_ONLY = tuple(name for name, family in FAMILIES.items() if family.encoded == ("text", "null text"))


def conditioning(
    recipe: TeachRecipe, data: ImageDataset, device: torch.device
) -> tuple[Conditioner | None, Tensor | None]:
    """The conditioner, and for each image its label (or the index of its caption), int64 [n]; None without conditions.

    Raises:
        UserError: if recipe and images do not fit each other, or the captions cannot be encoded.
    """
    require_fitting(recipe, data)
    conditioner = conditioner_of(recipe, data, device)
    return conditioner, None if conditioner is None else labels_for(data, conditioner)


def require_fitting(recipe: TeachRecipe, data: ImageDataset) -> None:
    """Refuses images that the recipe cannot be taught on, before anything is made of them.

    Raises:
        UserError: naming every setting that does not fit.
    """
    mistakes, (_, height, width) = Mistakes(), data.shape
    with mistakes.collect():
        require_batch(len(data), recipe.training.batch)
    if height != width:
        mistakes.add(f"data.size: found images of {height} x {width}, expected square ones; set it, or pad them")
    if recipe.text is not None:
        if not is_foreign(recipe):
            kind = recipe.network.get("type")
            mistakes.add(f"network.type: found {kind!r}, expected 'diffusers', which reads text")
    elif recipe.network.get("type") in [*NETWORKS]:  # another is refused by name where it is built
        mistakes.add(*unfit_sizes(recipe, data))
        if recipe.guidance != 1 and not own_network(recipe, data).get("label_dim"):
            mistakes.add(
                f"guidance: found {recipe.guidance:g}, expected 1: network.label_dim is 0 and there is no text"
            )
    mistakes.require_none()


def is_foreign(recipe: TeachRecipe) -> bool:
    """Whether the network is one of diffusers' and none of unistep's own."""
    return recipe.network.get("type") == "diffusers"


def unfit_sizes(recipe: TeachRecipe, data: ImageDataset) -> Iterator[str]:
    """What is wrong with the sizes of a network of unistep's own, a message each."""
    network, sizes = recipe.network, image_sizes(data)
    for key in ("img_resolution", "img_channels"):
        if (found := network.get(key)) not in (sizes[key], AUTO):
            shown = "nothing" if found is None else repr(found)
            yield f"network.{key}: found {shown}, expected {sizes[key]}, as the images of data have it, or auto"
    found, k = network.get("label_dim"), data.num_classes
    classes = ", ".join(data.names[:SHOWN]) + (", ..." if k > SHOWN else "")
    if found is None and k:
        yield (
            f"network.label_dim: found nothing, but data has {k} classes ({classes}); expected {k} or auto, or 0 to "
            "learn without them"
        )
    elif found not in (None, 0, AUTO) and not k:
        yield (
            f"network.label_dim: found {found!r}, but data has no classes; expected 0, or images of each class in a "
            "folder of its own (data.labels)"
        )
    elif found not in (None, 0, k, AUTO):
        yield f"network.label_dim: found {found!r}, expected {k}, the number of classes ({classes}), or auto"


def conditioner_of(recipe: TeachRecipe, data: ImageDataset, device: torch.device) -> Conditioner | None:
    """Captions or classes, as the recipe has it; None without conditions."""
    if recipe.text is not None:
        return captions_of(recipe.text, data.captions, device)
    if not is_foreign(recipe) and own_network(recipe, data).get("label_dim", 0):
        return LabelConditioner(data.num_classes, data.names)
    return None


def captions_of(text: TextConfig, captions: tuple[str, ...], device: torch.device) -> Captions:
    """Each different caption once, in the order of the images, encoded by one rank for all."""
    prompts = tuple(dict.fromkeys(captions))
    encoding = TextEncoding.of(text.encoder, text.tokens)
    on_rank_zero(lambda: Captions.encoded(encoding, prompts, device))
    return Captions.encoded(encoding, prompts, device)


def teacher_config(recipe: TeachRecipe, data: ImageDataset, conditioner: Conditioner | None) -> dict[str, Any]:
    """What `save_denoiser` stores beside the weights.

    Raises:
        UserError: if the network does not fit the captions.
    """
    if is_foreign(recipe):
        seen = diffusers_network(recipe, data.shape, conditioner)
    else:
        seen = {"network": own_network(recipe, data), "sigma_data": recipe.sigma_data}
    return {
        **seen,
        "process": recipe.process,
        "shape": list(data.shape),
        "conditioner": conditioner.config() if conditioner is not None else None,
        "codec": PixelCodec().config(),
    }


def own_network(recipe: TeachRecipe, data: ImageDataset) -> dict[str, Any]:
    """One of unistep's networks, with the sizes of the images where the recipe says auto."""
    sizes = image_sizes(data)
    return {key: sizes[key] if key in sizes and value == AUTO else value for key, value in recipe.network.items()}


def image_sizes(data: ImageDataset) -> dict[str, int]:
    """The sizes of a network that the images decide."""
    return {"img_resolution": data.shape[1], "img_channels": data.shape[0], "label_dim": data.num_classes}


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
