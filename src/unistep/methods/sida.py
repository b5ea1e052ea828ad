"""Adversarial score identity distillation, SiDA (arXiv:2410.14919): SiD with a discriminator on its fake score."""

from dataclasses import replace
from typing import Literal

from pydantic import Field
from torch import Tensor

from unistep.methods.base import Batch, LossOutput, Random
from unistep.methods.ingredients import Ingredients
from unistep.methods.judging import denoising_and_telling, fooling
from unistep.methods.sid import SiD, SiDConfig
from unistep.types import Cond

# ----------------------------------------------------------------------------------------------------- configuration


class SiDAConfig(SiDConfig):
    """Settings of SiDA: those of SiD at alpha 1, and the weights of the GAN.

    `lambda_gan` weighs the GAN in the generator's loss, `lambda_telling` in the fake score's (DMD2's). The first is the
    paper's 0.01, but not the paper's balance: SiD's term is a mean over dimensions here and a sum with a scale of 100
    there, so that the GAN weighs more.
    """

    name: Literal["sida"]  # pyright: ignore[reportIncompatibleVariableOverride]
    alpha: float = 1.0
    lambda_gan: float = Field(default=1e-2, gt=0)
    lambda_telling: float = Field(default=1e-2, gt=0)

    @property
    def needs_data(self) -> bool:
        return True

    def build(self, made_of: Ingredients) -> "SiDA":
        return SiDA(made_of, self)


# -------------------------------------------------------------------------------------------------------- the method


class SiDA(SiD):
    """SiD whose fake score also tells real images from the generator's, from its bottleneck.

    Args:
        made_of: teacher, networks, guidance of the real score.
        config: settings.

    Raises:
        UserError: as SiD does, and for a network that names no bottleneck.
    """

    def __init__(self, made_of: Ingredients, config: SiDAConfig):
        super().__init__(made_of, config)
        self.lambda_gan, self.lambda_telling = config.lambda_gan, config.lambda_telling
        self.image_phases = tuple(phase.name for phase in self.phases(0))  # a phase may reuse a batch

    # ------------------------------------------------------------------------------------------------------- pieces

    def divergence(self, x: Tensor, cond: Cond, rng: Random) -> LossOutput:
        """SiD's loss at alpha 1, and lambda_gan times what being told from real images costs."""
        found = super().divergence(x, cond, rng)
        gan = fooling(self.fake_score, self.process, x, cond, rng)
        return replace(found, terms={**found.terms, "gan": gan}, weights={**found.weights, "gan": self.lambda_gan})

    def denoising(self, x: Tensor, batch: Batch, rng: Random) -> LossOutput:
        """SiD's denoising and the discriminator's loss."""
        noisy = self.noise(x, rng)
        return denoising_and_telling(
            self.fake_score,
            self.process,
            noisy,
            x,
            batch,
            rng,
            weighting=self.teacher.weighting,
            lambda_telling=self.lambda_telling,
        )
