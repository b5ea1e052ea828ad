"""Adversarial score identity distillation, SiDA (arXiv:2410.14919): SiD with a discriminator on its fake score."""

from typing import Literal

from pydantic import Field
from torch import Tensor

from unistep.losses.adversarial import fooling_loss, telling_loss
from unistep.losses.denoising import denoising_loss
from unistep.losses.score_identity import inverse_distance, score_identity_loss
from unistep.methods.base import Batch, LossOutput, Random
from unistep.methods.ingredients import Ingredients
from unistep.methods.judging import told
from unistep.methods.matching import compare_scores, evaluate_base, levels, noise_uniformly
from unistep.methods.sid import SiD, SiDConfig
from unistep.process.noising import noised
from unistep.types import Cond

# ----------------------------------------------------------------------------------------------------- configuration


class SiDAConfig(SiDConfig):
    """Settings of SiDA: those of SiD at alpha 1, and the weights of the GAN.

    `lambda_gan` weighs the GAN in the generator's loss, `lambda_telling` in the fake score's. The first is the paper's
    0.01, but not the paper's balance: SiD's term and the denoising are means over dimensions here and sums there, SiD's
    with a scale of 100, so that the GAN weighs more. The second is ours, beside the paper's lambda(t) / 2.
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
        """SiD's loss at alpha 1 and the GAN's, from the same passes and divided by the same distance."""
        t, x_t = noise_uniformly(self.process, x, rng, *levels(self.process, self.config))
        mu_base, unguided = evaluate_base(self.mu_base, x_t, t, cond)
        mu_fake, logits = self.fake_score(x_t, t, cond, judged=True)
        terms = {
            "sid": score_identity_loss(x, mu_base, mu_fake, self.config.alpha),
            "gan": inverse_distance(x, mu_base) * fooling_loss(logits),
        }
        logs = compare_scores(self.teacher.weighting, mu_base, unguided, mu_fake, x.detach(), t)
        weights = {"sid": 1.0, "gan": self.lambda_gan}
        return LossOutput(terms=terms, weights=weights, samples=x.detach(), logs=logs)

    def denoising(self, x: Tensor, batch: Batch, rng: Random) -> LossOutput:
        """SiD's denoising and the discriminator's loss at the same x_t, weighed by lambda(t) / 2 (EDM's weight).

        Real images are noised to the same levels.
        """
        if batch.real is None:
            raise ValueError("found a batch without real images, expected some: the discriminator learns from them")
        t, x_t = self.noise(x, rng)
        real = noised(self.process, batch.real, t, rng.normal(*batch.real.shape).to(t.device))
        mu, on_fake = self.fake_score(x_t, t, batch.cond, judged=True)
        on_real = self.fake_score(real, t, batch.real_cond, decoded=False)
        weight = self.teacher.weighting(t)
        terms = {
            "denoise": denoising_loss(mu, x, weight),
            "telling": weight.float() / 2 * telling_loss(on_fake, on_real),
        }
        weights = {"denoise": 1.0, "telling": self.lambda_telling}
        return LossOutput(terms=terms, weights=weights, logs=told(on_fake, on_real))
