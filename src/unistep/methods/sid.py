"""Score identity distillation, SiD (arXiv:2404.04057): data-free, the gradient goes through both scores."""

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from unistep.losses.denoising import denoising_loss
from unistep.losses.score_identity import score_identity_loss
from unistep.methods.base import Batch, LossOutput, Method, Phase, Random, updates_of
from unistep.methods.config import MethodConfig, refuse_unused, require_edm
from unistep.methods.ingredients import Ingredients
from unistep.methods.matching import compare_scores, evaluate_base, levels, noise_uniformly, require_range
from unistep.networks.precision import require_gradient_range
from unistep.process.noising import noised
from unistep.types import Cond

# ----------------------------------------------------------------------------------------------------- configuration


class SiDConfig(MethodConfig):
    """Settings of SiD; the defaults are the paper's. It starts the generator at `generator.sigma_init: 2.5`.

    `alpha` weighs the naive estimate of the divergence that is subtracted. `fake_levels` are those at which the fake
    score learns: `lognormal`, ln sigma ~ N(P_mean, P_std^2) as EDM trains, or `uniform` over the training grid.
    """

    name: Literal["sid"]
    alpha: float = 1.2
    min_fraction: float = Field(default=0.0, ge=0, le=1)
    max_fraction: float = Field(default=0.8, ge=0, le=1)
    fake_score_updates_per_step: int = Field(default=1, ge=1, le=100)
    fake_levels: Literal["lognormal", "uniform"] = "lognormal"
    P_mean: float = -1.2
    P_std: float = Field(default=1.2, gt=0)

    @model_validator(mode="after")
    def check(self) -> "SiDConfig":
        """A range that is none is refused, and so is a distribution of levels that are not drawn from it."""
        require_range(self)
        if self.fake_levels == "uniform":
            refuse_unused(self, ("P_mean", "P_std"), "fake_levels is uniform")
        return self

    def build(self, made_of: Ingredients) -> "SiD":
        return SiD(made_of, self)


# -------------------------------------------------------------------------------------------------------- the method


class SiD(Method):
    """Fake score and generator in turns; the generator makes the Fisher divergence to the teacher small.

    Args:
        made_of: teacher, networks, guidance of the real score.
        config: settings.

    Raises:
        UserError: for lognormal levels with a process whose time is not sigma, guidance without conditions, or a
            teacher in float16, which gradients pass through.
    """

    averaged = "generator"

    def __init__(self, made_of: Ingredients, config: SiDConfig):
        self.teacher, self.config, self.process = made_of.teacher, config, made_of.teacher.process
        if config.fake_levels == "lognormal":
            require_edm(self.process, "method.fake_levels: found lognormal", "use fake_levels uniform")
        require_gradient_range(made_of.teacher.denoiser, f"method.name: {config.name}")
        guided_base = made_of.mu_base
        self.mu_base = made_of.teacher.denoiser if guided_base is made_of.teacher else guided_base  # with gradients
        self.generator = made_of.generator()
        self.fake_score: nn.Module = made_of.judged() if config.needs_data else made_of.denoiser()
        self.networks = {"generator": self.generator, "fake_score": self.fake_score}

    def phases(self, step: int) -> tuple[Phase, ...]:
        """The generator, then the fake score, first on the same samples (the paper begins with the fake score)."""
        updates = updates_of("fake_score", self.config.fake_score_updates_per_step)
        return Phase(name="generator", trains=("generator",)), *updates

    def loss(self, phase: Phase, batch: Batch, rng: Random) -> LossOutput:
        return self.generator_loss(batch, rng) if phase.name == "generator" else self.fake_score_loss(batch, rng)

    # ------------------------------------------------------------------------------------------------------- phases

    def generator_loss(self, batch: Batch, rng: Random) -> LossOutput:
        """What the generator's samples cost (Algorithm 1)."""
        x = self.generator(rng.normal(batch.size, *self.teacher.shape), batch.cond)
        return self.divergence(x, batch.cond, rng)

    def fake_score_loss(self, batch: Batch, rng: Random) -> LossOutput:
        """Denoising of the generator's samples, as the teacher was trained."""
        x = batch.samples
        if x is None:
            with torch.no_grad():
                x = self.generator(rng.normal(batch.size, *self.teacher.shape), batch.cond)
        return self.denoising(x, batch, rng)

    # ------------------------------------------------------------------------------------------------------- pieces

    def divergence(self, x: Tensor, cond: Cond, rng: Random) -> LossOutput:
        """The score-identity loss of samples with gradients, x_t moving with x."""
        t, x_t = noise_uniformly(self.process, x, rng, *levels(self.process, self.config))
        mu_base, unguided = evaluate_base(self.mu_base, x_t, t, cond)
        mu_fake = self.fake_score(x_t, t, cond)
        loss = score_identity_loss(x, mu_base, mu_fake, self.config.alpha)
        logs = compare_scores(self.teacher.weighting, mu_base, unguided, mu_fake, x.detach(), t)
        return LossOutput(terms={"sid": loss}, weights={"sid": 1.0}, samples=x.detach(), logs=logs)

    def denoising(self, x: Tensor, batch: Batch, rng: Random) -> LossOutput:
        """What denoising the samples costs the fake score."""
        t, x_t = self.noise(x, rng)
        loss = denoising_loss(self.fake_score(x_t, t, batch.cond), x, self.teacher.weighting(t))
        return LossOutput(terms={"denoise": loss}, weights={"denoise": 1.0})

    def noise(self, x: Tensor, rng: Random) -> tuple[Tensor, Tensor]:
        """t and x_t as the fake score sees them."""
        if self.config.fake_levels == "uniform":
            return noise_uniformly(self.process, x, rng)
        sigma = (self.config.P_mean + self.config.P_std * rng.normal(len(x)).to(x.device)).exp()
        return sigma, noised(self.process, x, sigma, rng.normal(*x.shape).to(x.device))
