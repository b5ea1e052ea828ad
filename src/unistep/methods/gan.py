"""GAN-only distillation: the teacher's network as generator and as diffusion discriminator, no scores.

DMD2 (arXiv:2405.14867, Table 3) has it as an ablation, "GAN alone"; the discriminator sees noised samples, as in
Diffusion-GAN (arXiv:2206.02262).
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from unistep.losses.adversarial import telling_loss
from unistep.methods.base import Batch, LossOutput, Method, Phase, Random, updates_of
from unistep.methods.config import MethodConfig
from unistep.methods.ingredients import Ingredients
from unistep.methods.judging import fooling, told
from unistep.methods.matching import noise_uniformly
from unistep.types import Cond, joined

# ----------------------------------------------------------------------------------------------------- configuration


class GANConfig(MethodConfig):
    """Settings of the GAN: how often the discriminator learns per step (DMD2's "TTUR" ablation has 5)."""

    name: Literal["gan"]
    discriminator_updates_per_step: int = Field(default=1, ge=1, le=100)

    @property
    def needs_data(self) -> bool:
        return True

    def build(self, made_of: Ingredients) -> "GAN":
        return GAN(made_of, self)


# -------------------------------------------------------------------------------------------------------- the method


class GAN(Method):
    """G fools D and D tells real from fake, both asked at every noise level.

    Both start from the teacher's network; of D only the part that its logit depends on is trained.

    Args:
        made_of: teacher and networks.
        config: settings.

    Raises:
        UserError: for a network that names no bottleneck.
    """

    averaged = "generator"

    def __init__(self, made_of: Ingredients, config: GANConfig):
        self.teacher, self.config, self.process = made_of.teacher, config, made_of.teacher.process
        self.generator, self.discriminator = made_of.generator(), made_of.judged(decodes=False)
        self.networks = {"generator": self.generator, "discriminator": self.discriminator}
        self.image_phases = tuple(phase.name for phase in self.phases(0))  # a phase may reuse a batch

    def phases(self, step: int) -> tuple[Phase, ...]:
        """The generator, then the discriminator, first on the same samples."""
        updates = updates_of("discriminator", self.config.discriminator_updates_per_step)
        return Phase(name="generator", trains=("generator",)), *updates

    def loss(self, phase: Phase, batch: Batch, rng: Random) -> LossOutput:
        return self.generator_loss(batch, rng) if phase.name == "generator" else self.discriminator_loss(batch, rng)

    # ------------------------------------------------------------------------------------------------------- phases

    def generator_loss(self, batch: Batch, rng: Random) -> LossOutput:
        """softplus(-D(x_t)) of the noised samples."""
        x = self.generator(rng.normal(batch.size, *self.teacher.shape), batch.cond)
        loss = fooling(self.discriminator, self.process, x, batch.cond, rng)
        return LossOutput(terms={"gan": loss}, weights={"gan": 1.0}, samples=x.detach())

    def discriminator_loss(self, batch: Batch, rng: Random) -> LossOutput:
        """softplus(D(fake)) + softplus(-D(real)), each at noise levels of its own."""
        x, real = batch.samples, batch.real
        if real is None:
            raise ValueError("gan: found a batch without real images")
        if x is None:
            with torch.no_grad():
                x = self.generator(rng.normal(batch.size, *self.teacher.shape), batch.cond)
        (t_fake, fake), (t_real, noisy) = (noise_uniformly(self.process, images, rng) for images in (x, real))
        cond = joined(batch.cond, batch.real_cond)
        logits = self.logits(torch.cat([fake, noisy]), torch.cat([t_fake, t_real]), cond)
        on_fake, on_real = logits.split([len(x), len(real)])
        logs = told(on_fake, on_real)
        return LossOutput(terms={"telling": telling_loss(on_fake, on_real)}, weights={"telling": 1.0}, logs=logs)

    # ------------------------------------------------------------------------------------------------------- pieces

    def logits(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """D's opinion of noised samples, [b]."""
        return self.discriminator(x_t, t, cond, decoded=False)
