"""A codec's networks stay where they were put: shapes are asked, latents decoded and images encoded where they are.

The meta device stands in for an accelerator: nothing can be brought back from it.
"""

import copy
import dataclasses

import pytest
import tiny_pipelines as tiny
import torch

from unistep.evaluation.extractors.resized import ResizedCodec
from unistep.methods.config import Distance
from unistep.run.distance import distance_of
from unistep.run.sample_sources import SampleSource
from unistep.teachers.codecs import PixelCodec, move_codec
from unistep.teachers.diffusers import Options, teacher_from_pipeline
from unistep.teachers.diffusers.codec import VAECodec
from unistep.teachers.teacher import Teacher

META = torch.device("meta")


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    options = Options(prompts=["a digit"], compare=0)
    return teacher_from_pipeline(tiny.sd15(), options)


@pytest.fixture
def away(teacher: Teacher) -> Teacher:
    """The teacher with its VAE on the other device."""
    assert isinstance(teacher.codec, VAECodec)
    codec = dataclasses.replace(teacher.codec, vae=copy.deepcopy(teacher.codec.vae).to(META))
    return dataclasses.replace(teacher, codec=codec)


def places(teacher: Teacher) -> set[torch.device]:
    assert isinstance(teacher.codec, VAECodec)
    return {tensor.device for tensor in teacher.codec.vae.state_dict().values()}


def test_asking_for_shapes_leaves_the_vae_where_it_is(teacher: Teacher, away: Teacher) -> None:
    assert away.image_shape() == teacher.image_shape()
    assert places(away) == {META}


def test_latents_come_to_the_vae_with_their_gradients(away: Teacher) -> None:
    x = torch.randn(2, *away.shape, requires_grad=True)
    assert isinstance(away.codec, VAECodec)
    images = away.codec.images(x)
    assert images.device == META and images.requires_grad and places(away) == {META}


def test_images_come_to_the_vae_and_latents_stay_there(away: Teacher) -> None:
    images = torch.zeros(2, *away.image_shape(), dtype=torch.uint8)
    x = away.codec.encode(images)
    assert x.device == META and tuple(x.shape[1:]) == away.shape and places(away) == {META}


def test_what_draws_samples_brings_the_codecs_networks(teacher: Teacher) -> None:
    assert isinstance(teacher.codec, VAECodec)
    codec = dataclasses.replace(teacher.codec, vae=copy.deepcopy(teacher.codec.vae))
    here = dataclasses.replace(teacher, codec=codec)
    SampleSource(
        model=lambda z, cond, seeds: z, shape=here.shape, codec=ResizedCodec(codec, 8), conditioner=None, device=META
    )
    assert places(here) == {META}
    move_codec(PixelCodec(), META)


def test_a_decoder_of_a_distance_is_where_the_distance_is(teacher: Teacher) -> None:
    assert isinstance(teacher.codec, VAECodec)
    here = dataclasses.replace(teacher, codec=dataclasses.replace(teacher.codec, vae=copy.deepcopy(teacher.codec.vae)))
    wanted = Distance(name="multiscale", perceptual_network=None, pixel_weight=1.0, decoder="vae")
    assert distance_of(wanted, here, META) is not None
    assert places(here) == {META}
