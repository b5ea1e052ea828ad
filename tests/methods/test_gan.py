"""GAN-only distillation: a diffusion discriminator whose decoder stays what it was."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from fixed_random import FixedRandom
from small import ROWS, full_batch, made_of

from unistep.diffusion.process.noising import noised
from unistep.methods.gan import GAN, GANConfig


def make() -> GAN:
    method = GANConfig(name="gan").build(made_of(classes=3))
    with torch.no_grad():
        for p in method.discriminator.head.parameters():  # type: ignore[union-attr]
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(4)))
    return method


def test_the_two_losses_by_hand() -> None:
    method, batch, process = make(), full_batch(3), make().process
    generator, discriminator = method.phases(0)
    found = generator.loss(batch, FixedRandom(1))
    rng = FixedRandom(1)
    x = method.generator(rng.normal(ROWS, 2), batch.cond)
    t = process.time(rng.integers(ROWS, 0, 999) / 999)
    logits = method.discriminator(noised(process, x, t, rng.normal(ROWS, 2)), t, batch.cond, output="logits")
    torch.testing.assert_close(found.terms["gan"], F.softplus(-logits))

    samples = torch.randn(ROWS, 2)
    found = discriminator.loss(type(batch)(**{**vars(batch), "samples": samples}), FixedRandom(2))
    rng, logits = FixedRandom(2), []
    for clean in (samples, batch.real):
        assert clean is not None
        t = process.time(rng.integers(ROWS, 0, 999) / 999)
        logits.append(
            method.discriminator(noised(process, clean, t, rng.normal(ROWS, 2)), t, batch.cond, output="logits")
        )
    torch.testing.assert_close(found.terms["disc"], F.softplus(logits[0]) + F.softplus(-logits[1]))


def test_what_no_logit_depends_on_is_frozen() -> None:
    network = make().discriminator
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    last = {f"denoiser.model.blocks.1.{name}" for name, _ in network.denoiser.model.blocks[1].named_parameters()}  # type: ignore[union-attr,index]
    assert frozen == last | {"denoiser.model.head.weight", "denoiser.model.head.bias"}


def test_a_network_that_is_partly_frozen_already_can_be_judged() -> None:
    inputs = made_of(classes=3)
    network = inputs.copy()
    shared = replace(inputs, copy=lambda: network)  # as a comparison counts phases
    first = GANConfig(name="gan").build(shared).discriminator
    frozen = {name for name, p in first.named_parameters() if not p.requires_grad}
    again = GANConfig(name="gan").build(shared).discriminator
    assert frozen and {name for name, p in again.named_parameters() if not p.requires_grad} == frozen
