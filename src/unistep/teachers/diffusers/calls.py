"""How each family of networks is called: (network, x_t, time, conditions by name) -> its raw prediction."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

Named = Mapping[str, Tensor]


def unet_2d(network: nn.Module, x: Tensor, time: Tensor, cond: Named) -> Tensor:
    """UNet2DModel, with classes or without."""
    return network(x, time, class_labels=cond.get("label"), return_dict=False)[0]


def unet(network: nn.Module, x: Tensor, time: Tensor, cond: Named) -> Tensor:
    """The U-Net of Stable Diffusion 1 and 2."""
    return network(x, time, encoder_hidden_states=cond["text"], return_dict=False)[0]


def sdxl(network: nn.Module, x: Tensor, time: Tensor, cond: Named) -> Tensor:
    """The U-Net of Stable Diffusion XL, which is told the size of the image and its crop, too."""
    added = {"text_embeds": cond["pooled"], "time_ids": cond["time_ids"]}
    return network(x, time, encoder_hidden_states=cond["text"], added_cond_kwargs=added, return_dict=False)[0]


def dit(network: nn.Module, x: Tensor, time: Tensor, cond: Named) -> Tensor:
    """DiT on classes."""
    return network(x, timestep=time, class_labels=cond["label"], return_dict=False)[0]


def pixart(network: nn.Module, x: Tensor, time: Tensor, cond: Named) -> Tensor:
    """PixArt-Sigma, which is told neither resolution nor aspect ratio."""
    return network(
        x,
        encoder_hidden_states=cond["text"],
        encoder_attention_mask=cond["mask"],
        timestep=time,
        added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        return_dict=False,
    )[0]


def sd3(network: nn.Module, x: Tensor, time: Tensor, cond: Named) -> Tensor:
    """Stable Diffusion 3."""
    return network(
        x, encoder_hidden_states=cond["text"], pooled_projections=cond["pooled"], timestep=time, return_dict=False
    )[0]


def flux(network: nn.Module, x: Tensor, time: Tensor, cond: Named) -> Tensor:
    """FLUX.1: packed latents with the place of each patch, and the distilled guidance scale where there is one."""
    output = network(
        pack(x),
        encoder_hidden_states=cond["text"],
        pooled_projections=cond["pooled"],
        timestep=time,
        img_ids=places(x),
        txt_ids=x.new_zeros(cond["text"].shape[1], 3),
        guidance=cond.get("guidance"),
        return_dict=False,
    )[0]
    return unpack(output, x.shape)


def sana(network: nn.Module, x: Tensor, time: Tensor, cond: Named) -> Tensor:
    """Sana, which may scale the timestep."""
    return network(
        x,
        encoder_hidden_states=cond["text"],
        encoder_attention_mask=cond["mask"],
        timestep=time * network.config["timestep_scale"],  # type: ignore[index]
        return_dict=False,
    )[0]


def lumina2(network: nn.Module, x: Tensor, time: Tensor, cond: Named) -> Tensor:
    """Lumina-Image 2.0."""
    return network(
        x,
        timestep=time,
        encoder_hidden_states=cond["text"],
        encoder_attention_mask=cond["mask"],
        return_dict=False,
    )[0]


def z_image(network: nn.Module, x: Tensor, time: Tensor, cond: Named) -> Tensor:
    """Z-Image: lists of one-frame latents and of texts without their padding."""
    texts = [text[mask.bool()] for text, mask in zip(cond["text"], cond["mask"], strict=True)]
    output = network(list(x.unsqueeze(2)), time, texts, return_dict=False)[0]
    return torch.stack(list(output)).squeeze(2)


def wan(network: nn.Module, x: Tensor, time: Tensor, cond: Named) -> Tensor:
    """Wan 2.1: video latents [b, c, frames, h, w]."""
    return network(x, timestep=time, encoder_hidden_states=cond["text"], return_dict=False)[0]


def qwen_image(network: nn.Module, x: Tensor, time: Tensor, cond: Named) -> Tensor:
    """Qwen-Image: packed latents and the number of patches on each side."""
    output = network(
        pack(x),
        encoder_hidden_states=cond["text"],
        encoder_hidden_states_mask=cond["mask"],
        timestep=time,
        img_shapes=[[(1, x.shape[2] // 2, x.shape[3] // 2)]],  # of every row: a list has no symbolic length
        guidance=cond.get("guidance"),
        return_dict=False,
    )[0]
    return unpack(output, x.shape)


def pack(x: Tensor) -> Tensor:
    """Latents [b, c, h, w] as a sequence of 2x2 patches [b, h/2 w/2, 4 c]."""
    b, c, h, w = x.shape
    return x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)


def unpack(patches: Tensor, shape: torch.Size) -> Tensor:
    """The way back from `pack`, to [b, c, h, w]."""
    b, c, h, w = shape
    return patches.reshape(b, h // 2, w // 2, c, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, c, h, w)


def places(x: Tensor) -> Tensor:
    """(0, row, column) of each 2x2 patch, [h/2 w/2, 3]."""
    rows, columns = (torch.arange(n // 2, device=x.device) for n in x.shape[2:])
    grid = torch.cartesian_prod(rows, columns)
    return torch.nn.functional.pad(grid, (1, 0)).to(x.dtype)
