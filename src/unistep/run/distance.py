"""The distance that a method's settings name, ready to use: networks loaded, latents decoded if images are seen."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from unistep.errors import UserError
from unistep.evaluation.extractors.features import load_perceptual, perceptual_file
from unistep.evaluation.extractors.network_file import PerceptualNetwork
from unistep.losses.lpips import VGGMetric
from unistep.losses.regression import OF_IMAGES, Pairwise, build_regression, of_decoded, require_images
from unistep.methods.config import Distance
from unistep.networks.state_dict import load_strictly
from unistep.networks.weights_file import read_weights
from unistep.run.folder import record
from unistep.teachers.codecs import PixelCodec, move_codec
from unistep.teachers.diffusers.codec import VAECodec
from unistep.teachers.diffusers.tiny import load_tiny
from unistep.teachers.module import identity
from unistep.teachers.teacher import Teacher
from unistep.training.distributed import on_rank_zero

KEY = "method.lpips_weights"
EXPECTED = "VGG16 (torchvision's vgg16-397923af.pth) and LPIPS's layers (vgg.pth of its v0.1), or one file with both"
CLASSIFIER = "classifier."  # of VGG16, which no feature map needs


def lpips_of_files(files: Sequence[str], folder: Path | None) -> VGGMetric:
    """The metric with the weights in these files together; run.json in `folder` says which they were.

    Raises:
        UserError: for a missing or unreadable file, or files that do not make up the metric.
    """
    state: dict[str, Tensor] = {}
    hashes: dict[str, str] = {}
    for file in files:
        tensors, hashes[file] = read_weights(Path(file), KEY, EXPECTED)
        state |= {name: value for name, value in tensors.items() if not name.startswith(CLASSIFIER)}
    metric = VGGMetric()
    load_strictly(metric, state, f"{KEY}: {', '.join(files)}")
    if folder is not None:
        on_rank_zero(lambda: record(folder, lpips_weights=hashes))
    return metric


TINY = "tiny:"
SEEN = ("perceptual", "lpips")  # distances of networks that look at images in [-1, 1]


def distance_of(
    wanted: Distance | None, teacher: Teacher, device: torch.device, folder: Path | None = None
) -> Pairwise | None:
    """The distance for samples [b, *teacher.shape] that a method's settings name; None where none is needed.

    Args:
        wanted: the settings.
        teacher: whose samples are compared.
        device: where.
        folder: of the run that records which weights they were; None records nothing.

    Raises:
        UserError: for a distance of images, a decoder or a perceptual network that does not suit the samples, or for
            missing weights.
    """
    if wanted is None:
        return None
    decoder = decoder_of(wanted, teacher, folder)
    if decoder is not None:
        move_codec(decoder, device)
    else:
        require_images(wanted.name, teacher.shape)
    features = None
    if wanted.perceptual_network is not None:
        seen = teacher.shape if decoder is None else teacher.image_shape()
        features = perceptual_network(wanted.perceptual_network, seen, folder).to(device)
    lpips = lpips_of_files(wanted.lpips_weights, folder) if wanted.lpips_weights else None
    distance = build_regression(wanted.name, features, wanted.pixel_weight, lpips)
    if isinstance(distance, nn.Module):
        distance = distance.to(device)
    if decoder is not None:
        return of_decoded(distance, decoder.images)
    codec = teacher.codec
    if wanted.name in SEEN and isinstance(codec, PixelCodec) and not codec.is_signed:
        return of_decoded(distance, codec.signed)
    return distance


def decoder_of(wanted: Distance, teacher: Teacher, folder: Path | None) -> VAECodec | None:
    """What makes images of the teacher's latents, None where samples are compared as they are.

    Raises:
        UserError: for a decoder where there are no latents, or a distance of images of latents without one.
    """
    codec = teacher.codec
    if not isinstance(codec, VAECodec):
        if wanted.decoder is not None:
            raise UserError(f"method.decoder: found {wanted.decoder}, expected null: {teacher.source} has no latents")
        return None
    if wanted.decoder is None:
        if wanted.name in OF_IMAGES:
            raise UserError(
                f"method.regression: found {wanted.name!r}, a distance of images, for latents of {teacher.source}; set "
                "method.decoder to vae or tiny:PATH, or compare latents by l2 or pseudo_huber"
            )
        return None
    if wanted.decoder == "vae":
        return codec
    tiny = load_tiny(wanted.decoder.removeprefix(TINY), teacher.shape[0])
    if folder is not None:
        facts = {"source": wanted.decoder, "sha256": identity(tiny.vae, tiny.settings)}
        on_rank_zero(lambda: record(folder, decoder=facts))
    return tiny


def perceptual_network(spec: str, seen: tuple[int, ...], folder: Path | None = None) -> PerceptualNetwork:
    """The frozen network, for samples [b, *seen]; the run in `folder` records which weights they are.

    Raises:
        UserError: if it looks at others.
    """
    features = load_perceptual(spec)
    sees = (features.config["channels"], features.config["size"], features.config["size"])
    if sees != seen:
        raise UserError(
            f"method.perceptual_network: found one for samples of shape {list(sees)}, expected the teacher's "
            f"{list(seen)}; choose l2, or multiscale for images"
        )
    if folder is not None:
        facts = {"source": spec, "sha256": hashlib.sha256(perceptual_file(spec).read_bytes()).hexdigest()}
        on_rank_zero(lambda: record(folder, perceptual_network=facts))
    return features
