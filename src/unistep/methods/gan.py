"""GAN-only distillation: the teacher's network as generator and as diffusion discriminator, no scores.

DMD2 (arXiv:2405.14867, Table 3) has it as an ablation, "GAN alone"; the discriminator sees noised samples, as in
Diffusion-GAN (arXiv:2206.02262).
"""

from typing import Literal

import torch
from pydantic import Field

from unistep.methods.adversarial import noised_discriminator_loss, noised_generator_loss
from unistep.methods.base import Batch, LossOutput, Method, Phase, Random, repeat_update
from unistep.methods.config import MethodConfig
from unistep.methods.inputs import MethodInputs


class GAN(Method):
    """Trains G against a discriminator of noised samples; both are initialized from the teacher.

    Only the parameters of the discriminator that its logit depends on are trained.

    Args:
        inputs: teacher and networks.
        config: settings.

    Raises:
        UserError: for a network without a bottleneck.
    """

    ema_network = "generator"

    def __init__(self, inputs: MethodInputs, config: "GANConfig"):
        self.teacher, self.config, self.process = inputs.teacher, config, inputs.teacher.process
        self.generator = inputs.build_generator()
        self.discriminator = inputs.build_denoiser_with_discriminator(train_decoder=False)
        self.networks = {"generator": self.generator, "discriminator": self.discriminator}

    def phases(self, step: int) -> tuple[Phase, ...]:
        """The generator, then the discriminator, first on the same samples."""
        generator = Phase(name="generator", trains=("generator",), inputs={"images"}, loss=self.generator_loss)
        discriminator = Phase(
            name="discriminator", trains=("discriminator",), inputs={"images"}, loss=self.discriminator_loss,
            reuses_samples=True,
        )  # fmt: skip
        return generator, *repeat_update(discriminator, self.config.discriminator_updates_per_step)

    def generator_loss(self, batch: Batch, rng: Random) -> LossOutput:
        """softplus(-D(x_t)) of the noised samples."""
        x = self.generator(rng.normal(batch.size, *self.teacher.shape), batch.cond)
        loss = noised_generator_loss(self.discriminator, self.process, x, batch.cond, rng)
        return LossOutput(terms={"gan": loss}, weights={"gan": 1.0}, samples=x.detach())

    def discriminator_loss(self, batch: Batch, rng: Random) -> LossOutput:
        """softplus(D(fake)) + softplus(-D(real)), each at noise levels of its own."""
        x = batch.samples
        if x is None:
            with torch.no_grad():
                x = self.generator(rng.normal(batch.size, *self.teacher.shape), batch.cond)
        loss, logs = noised_discriminator_loss(self.discriminator, self.process, x, batch, rng)
        return LossOutput(terms={"disc": loss}, weights={"disc": 1.0}, logs=logs)


class GANConfig(MethodConfig):
    """Settings of the GAN: number of discriminator updates per step (DMD2's "TTUR" ablation has 5)."""

    name: Literal["gan"]
    discriminator_updates_per_step: int = Field(default=1, ge=1, le=100)

    @property
    def needs_data(self) -> bool:
        return True

    @property
    def has_discriminator(self) -> bool:
        return True

    def build(self, inputs: MethodInputs) -> GAN:
        return GAN(inputs, self)
