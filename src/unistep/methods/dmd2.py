"""Improved distribution matching, DMD2 (arXiv:2405.14867): a quick fake score, a GAN on it, several steps, no pairs."""

from functools import partial
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from unistep.losses.denoising import denoising_loss
from unistep.losses.distribution_matching import (
    Weighting,
    distribution_matching_gradient,
    distribution_matching_loss,
)
from unistep.methods.base import Batch, LossOutput, Method, Phase, Random, updates_of
from unistep.methods.config import ManySteps
from unistep.methods.ingredients import Ingredients, guided
from unistep.methods.judging import denoising_and_telling, fooling
from unistep.methods.matching import compare_scores, evaluate_base, levels, noise_uniformly, require_range
from unistep.methods.simulation import depth_of, simulated
from unistep.networks.generator import first_level
from unistep.types import Cond, bcast

# ----------------------------------------------------------------------------------------------------- configuration


class MatchingConfig(ManySteps):
    """Settings of DMD2 and its relatives; the defaults are the paper's for ImageNet (section 4, appendix F) but for
    `lambda_telling`, which is its authors' script's, and `step_held_for`, which is ours.

    `lambda_gan` weighs the GAN in the generator's loss, `lambda_telling` in the fake score's; at `lambda_gan: 0` no
    real images are needed. Of a generator with several steps one learns for `step_held_for` training steps in a row:
    the fake score then knows that step's samples rather than a mixture, within which the steps could make up for each
    other's missing modes.
    """

    staged = (
        "weighting", "min_fraction", "max_fraction", "fake_score_updates_per_step", "lambda_gan", "lambda_telling",
        "step_held_for",
    )  # fmt: skip
    weighting: Weighting = "eq8"
    min_fraction: float = Field(default=0.02, ge=0, le=1)
    max_fraction: float = Field(default=0.98, ge=0, le=1)
    fake_score_updates_per_step: int = Field(default=5, ge=1, le=100)
    lambda_gan: float = Field(default=3e-3, ge=0)
    lambda_telling: float = Field(default=1e-2, ge=0)
    step_held_for: int = Field(default=10, ge=1, le=10**9)

    @model_validator(mode="after")
    def check(self) -> "MatchingConfig":
        """Settings that contradict each other are refused."""
        require_range(self)
        if self.lambda_gan > 0 and self.lambda_telling == 0:
            raise ValueError("lambda_telling: found 0, expected a positive number: with lambda_gan there is a GAN")
        return self

    @property
    def needs_data(self) -> bool:
        return self.lambda_gan > 0


class DMD2Config(MatchingConfig):
    """Settings of DMD2."""

    name: Literal["dmd2"]

    def build(self, made_of: Ingredients) -> "DMD2":
        return DMD2(made_of, self)


# -------------------------------------------------------------------------------------------------------- the method


class DMD2(Method):
    """Generator and fake score in turns, the fake score several times per step; its bottleneck tells real from fake.

    Args:
        made_of: teacher, networks, guidance of the real score.
        config: settings.

    Raises:
        UserError: for guidance of a teacher without conditions, or a GAN on a network that names no bottleneck.
    """

    averaged = "generator"

    def __init__(self, made_of: Ingredients, config: MatchingConfig):
        self.teacher, self.config = made_of.teacher, config
        self.process, self.steps = made_of.teacher.process, config.steps(made_of.teacher.process)
        self.start = partial(first_level, self.process, made_of.t_init)
        self.mu_base = guided(made_of.teacher, made_of.guidance)
        self.generator = made_of.generator(self.steps)
        self.fake_score: nn.Module = made_of.judged() if config.needs_data else made_of.denoiser()
        self.networks = {"generator": self.generator, "fake_score": self.fake_score}
        self.image_phases = tuple(phase.name for phase in self.phases(0))  # a phase may reuse a batch

    def phases(self, step: int) -> tuple[Phase, ...]:
        """The generator, then the fake score several times (section 4.2), first on the same samples."""
        depth = depth_of(self.steps, step, self.config.step_held_for)
        updates = updates_of("fake_score", self.config.fake_score_updates_per_step, depth=depth)
        return Phase(name="generator", trains=("generator",), depth=depth), *updates

    def loss(self, phase: Phase, batch: Batch, rng: Random) -> LossOutput:
        if phase.name == "generator":
            return self.generator_loss(batch, rng, phase.depth)
        return self.fake_score_loss(batch, rng, phase.depth)

    def watched(self, batch: Batch, rng: Random) -> Tensor | None:
        """Samples of all steps: those that the phases made are of the one that learns."""
        if not self.steps.later:
            return None
        with torch.no_grad():
            return self.samples(batch, rng, len(self.steps.later))

    # ------------------------------------------------------------------------------------------------------- phases

    def generator_loss(self, batch: Batch, rng: Random, depth: int) -> LossOutput:
        """L_KL + lambda_gan L_GAN, of one of the generator's steps (sections 4.1, 4.3, 4.5)."""
        x = self.samples(batch, rng, depth)
        t, x_t = noise_uniformly(self.process, x.detach(), rng, *levels(self.process, self.config))
        with torch.no_grad():
            mu_base, unguided = evaluate_base(self.mu_base, x_t, t, batch.cond)
            mu_fake, h = self.evaluate_fake(x_t, t, batch.cond)
            gradient = bcast(h, x) * self.gradient(x, t, mu_base, mu_fake)
        terms, weights = {"dm": distribution_matching_loss(x, gradient)}, {"dm": 1.0}
        if self.config.needs_data:
            terms["gan"] = fooling(self.fake_score, self.process, x, batch.cond, rng)
            weights["gan"] = self.config.lambda_gan
        logs = compare_scores(self.teacher.weighting, mu_base, unguided, mu_fake, x.detach(), t)
        return LossOutput(terms=terms, weights=weights, samples=x.detach(), logs=logs)

    def fake_score_loss(self, batch: Batch, rng: Random, depth: int) -> LossOutput:
        """L_denoise on the generator's samples, and the discriminator's loss."""
        x = batch.samples
        if x is None:
            with torch.no_grad():
                x = self.samples(batch, rng, depth)
        t, x_t = noise_uniformly(self.process, x, rng)
        if not self.config.needs_data:
            mu = self.fake_score(x_t, t, batch.cond)
            loss = denoising_loss(mu, x, self.teacher.weighting(t))
            return LossOutput(terms={"denoise": loss}, weights={"denoise": 1.0})
        return denoising_and_telling(
            self.fake_score,
            self.process,
            (t, x_t),
            x,
            batch,
            rng,
            weighting=self.teacher.weighting,
            lambda_telling=self.config.lambda_telling,
        )

    # ------------------------------------------------------------------------------------------------------- pieces

    def samples(self, batch: Batch, rng: Random, depth: int) -> Tensor:
        """G's samples, of one of its steps."""
        z = rng.normal(batch.size, *self.teacher.shape)
        return simulated(self.generator, self.start, self.process, self.steps, z, batch.cond, rng, depth)

    def evaluate_fake(self, x_t: Tensor, t: Tensor, cond: Cond) -> tuple[Tensor, Tensor]:
        """mu_fake, and what each row's gradient is multiplied by, [b]: 1."""
        return self.fake_score(x_t, t, cond), torch.ones_like(t, dtype=torch.float32)

    def gradient(self, x: Tensor, t: Tensor, mu_base: Tensor, mu_fake: Tensor) -> Tensor:
        """What distribution matching wants to subtract from x (DMD, Algorithm 2)."""
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        return distribution_matching_gradient(x, mu_base, mu_fake, alpha, sigma, self.config.weighting)
