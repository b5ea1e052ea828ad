"""Adversarial score identity distillation, SiDA (arXiv:2410.14919): SiD with a discriminator on its fake score."""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field

from unistep.diffusion.process.noising import noised
from unistep.losses.adversarial import discriminator_loss, generator_gan_loss
from unistep.losses.denoising import denoising_loss
from unistep.losses.score_identity import inverse_distance, score_identity_loss
from unistep.methods.adversarial import discriminator_accuracies
from unistep.methods.base import Batch, LossOutput, Method, Phase, Random, repeat_update
from unistep.methods.inputs import MethodInputs
from unistep.methods.scores import sample_noised, score_diagnostics, score_losses, timestep_range
from unistep.methods.sid import SiDConfig


class SiDA(Method):
    """Trains the fake score with its discriminator and the generator in alternation.

    Args:
        inputs: teacher, networks, guidance of the real score.
        config: settings.

    Raises:
        UserError: as SiD, or for a network without a bottleneck.
    """

    ema_network = "generator"

    def __init__(self, inputs: MethodInputs, config: "SiDAConfig"):
        config.require_compatible(inputs)
        self.teacher, self.mu_base, self.config = inputs.teacher, inputs.mu_base, config
        self.process, self.timesteps = inputs.teacher.process, timestep_range(inputs.teacher.process, config)
        self.generator = inputs.build_generator()
        self.fake_score = inputs.build_denoiser_with_discriminator()
        self.networks = {"generator": self.generator, "fake_score": self.fake_score}

    def phases(self, step: int) -> tuple[Phase, ...]:
        """The generator, then the fake score, first on the same samples."""
        generator = Phase(name="generator", trains=("generator",), inputs={"images"}, loss=self.generator_loss)
        fake_score = Phase(
            name="fake_score", trains=("fake_score",), inputs={"images"}, loss=self.fake_score_loss, reuses_samples=True
        )
        return generator, *repeat_update(fake_score, self.config.fake_score_updates_per_step)

    def generator_loss(self, batch: Batch, rng: Random) -> LossOutput:
        """SiD's loss and the GAN's, from the same passes and divided by the same distance."""
        x = self.generator(rng.normal(batch.size, *self.teacher.shape), batch.cond)
        t, x_t = sample_noised(self.process, x, rng, *self.timesteps)
        mu_base, unguided = self.mu_base.with_unguided(x_t, t, batch.cond)
        mu_fake, logits = self.fake_score(x_t, t, batch.cond, output="both")
        terms = {
            "sid": score_identity_loss(x, mu_base, mu_fake, self.config.alpha),
            "gan": inverse_distance(x, mu_base) * generator_gan_loss(logits),
        }
        logs = score_diagnostics(self.teacher.weighting, mu_base, unguided, mu_fake, x.detach(), t)
        weights = {"sid": 1.0, "gan": self.config.lambda_gan}
        return LossOutput(terms=terms, weights=weights, samples=x.detach(), logs=logs)

    def fake_score_loss(self, batch: Batch, rng: Random) -> LossOutput:
        """The denoising loss and the discriminator's at the same x_t, the latter weighted by lambda(t) / 2.

        Real images are noised to the same levels; lambda(t) is EDM's weight.
        """
        x = batch.samples
        if x is None:
            with torch.no_grad():
                x = self.generator(rng.normal(batch.size, *self.teacher.shape), batch.cond)
        x_real, cond_real = batch.images()
        t, x_t = self.config.sample_fake_noised(self.process, x, rng)
        x_t_real = noised(self.process, x_real, t, rng.normal(*x_real.shape).to(t.device))
        mu_fake, fake = self.fake_score(x_t, t, batch.cond, output="both")
        real = self.fake_score(x_t_real, t, cond_real, output="logits")
        weight = self.teacher.weighting(t)
        terms = {
            "denoise": denoising_loss(mu_fake, x, weight),
            "disc": weight.float() / 2 * discriminator_loss(fake, real),
        }
        weights = {"denoise": 1.0, "disc": self.config.lambda_telling}
        return LossOutput(terms=terms, weights=weights, logs=discriminator_accuracies(fake, real))

    def health_losses(self, logs: Mapping[str, float]) -> tuple[float | None, float | None]:
        return score_losses(logs)


class SiDAConfig(SiDConfig):
    """Settings of SiDA: those of SiD at alpha 1, and the weights of the GAN.

    `lambda_gan` weights the GAN in the generator's loss, `lambda_telling` in the fake score's. The first is the paper's
    0.01, but not the paper's balance: SiD's term and the denoising are means over dimensions here and sums there, SiD's
    with a scale of 100, so that the GAN has more weight. The second is ours, beside the paper's lambda(t) / 2.
    """

    name: Literal["sida"]  # pyright: ignore[reportIncompatibleVariableOverride]
    alpha: float = 1.0
    lambda_gan: float = Field(default=1e-2, gt=0)
    lambda_telling: float = Field(default=1e-2, gt=0)

    @property
    def needs_data(self) -> bool:
        return True

    @property
    def has_discriminator(self) -> bool:
        return True

    def build(self, inputs: MethodInputs) -> SiDA:
        return SiDA(inputs, self)
