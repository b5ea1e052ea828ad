"""A tiny autoencoder (TAESD and its kin) in the place of a pipeline's VAE, for losses that look at images."""

from pathlib import Path
from typing import Any

from unistep.errors import UserError, one_line
from unistep.io.hub import announce_download, is_hub_id
from unistep.teachers.diffusers.codec import VAECodec
from unistep.teachers.diffusers.rebuild import import_diffusers


def load_tiny(spec: str, channels: int) -> VAECodec:
    """A decoder of latents in the scale that denoisers know them in.

    Args:
        spec: a folder of an `AutoencoderTiny` of diffusers, or OWNER/NAME on the hub.
        channels: of the latents.

    Raises:
        UserError: if there is none, it cannot be reached, or it decodes other latents.
    """
    if not Path(spec).is_dir():
        if not is_hub_id(spec):
            raise UserError(
                f"method.decoder: found no folder {spec}, expected tiny:FOLDER or tiny:OWNER/NAME of the hub"
            )
        announce_download(spec)
    kind: Any = import_diffusers().AutoencoderTiny
    try:
        vae = kind.from_pretrained(spec, use_safetensors=True)
    except Exception as error:  # whatever the hub's client and its transport raise
        raise UserError(
            f"method.decoder: cannot load an AutoencoderTiny from {spec}: {one_line(error)}; without a network give "
            "the path of a folder"
        ) from error
    if vae.config.latent_channels != channels:
        raise UserError(
            f"method.decoder: {spec} decodes latents of {vae.config.latent_channels} channels, expected {channels} as "
            "the teacher has"
        )
    return VAECodec(vae)
