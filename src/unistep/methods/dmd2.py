"""DMD2 (arXiv:2405.14867): distribution matching with frequent fake score updates, a GAN, several steps, no pairs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Set
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
from unistep.methods.adversarial import noised_discriminator_loss, noised_generator_loss
from unistep.methods.backward_simulation import backward_simulation, denoising_step
from unistep.methods.base import Batch, LossOutput, Method, Phase, Random, Stream, repeat_update
from unistep.methods.config import MultiStepConfig
from unistep.methods.inputs import MethodInputs
from unistep.methods.scores import (
    require_range,
    sample_noised,
    score_diagnostics,
    score_losses,
    timestep_range,
)
from unistep.networks.generator import first_level
from unistep.types import Cond, bcast


class DMD2(Method):
    """Trains generator and fake score in alternation, the fake score several times; it is a discriminator as well.

    Args:
        inputs: teacher, networks, guidance of the real score.
        config: settings.

    Raises:
        UserError: for guidance of a teacher without conditions, or a GAN on a network without a bottleneck.
    """

    ema_network = "generator"

    def __init__(self, inputs: MethodInputs, config: "DMD2Config"):
        self.teacher, self.mu_base, self.config = inputs.teacher, inputs.mu_base, config
        self.process, self.steps = inputs.teacher.process, config.steps(inputs.teacher.process)
        self.start = partial(first_level, self.process, inputs.t_init)
        self.generator = inputs.build_generator(self.steps)
        self.fake_score: nn.Module = (
            inputs.build_denoiser_with_discriminator() if config.has_discriminator else inputs.build_denoiser()
        )
        self.networks = {"generator": self.generator, "fake_score": self.fake_score}
        self.weight = config.build_gradient_weight(inputs)
        if self.weight is not None:
            self.auxiliary_networks = {"ratio_means": self.weight.to(next(self.generator.parameters()).device)}

    def phases(self, step: int) -> tuple[Phase, ...]:
        """The generator, then the fake score several times (section 4.2), first on the same samples."""
        k = denoising_step(self.steps, step, self.config.step_held_for)
        inputs: Set[Stream] = {"images"} if self.config.needs_data else set()
        generator = Phase(
            name="generator", trains=("generator",), inputs=inputs, loss=partial(self.generator_loss, k),
            denoising_step=k,
        )  # fmt: skip
        fake_score = Phase(
            name="fake_score", trains=("fake_score",), inputs=inputs, loss=partial(self.fake_score_loss, k),
            reuses_samples=True, denoising_step=k,
        )  # fmt: skip
        return generator, *repeat_update(fake_score, self.config.fake_score_updates_per_step)

    def generator_loss(self, k: int, batch: Batch, rng: Random) -> LossOutput:
        """D_KL + lambda_gan L_GAN of the generator's denoising step k (sections 4.1, 4.3, 4.5)."""
        x = self.generate(k, batch, rng)
        low, high = timestep_range(self.process, self.config)
        t, x_t = sample_noised(self.process, x.detach(), rng, low, high)  # Eq. 3 of DMD
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        with torch.no_grad():
            mu_base, unguided = self.mu_base.with_unguided(x_t, t, batch.cond)
            mu_fake, h = self.evaluate_fake(x_t, t, batch.cond)
            gradient = distribution_matching_gradient(x, mu_base, mu_fake, alpha, sigma, self.config.weighting)
            gradient = bcast(h, x) * gradient
        terms, weights = {"dm": distribution_matching_loss(x, gradient)}, {"dm": 1.0}
        if self.config.needs_data:
            terms["gan"] = noised_generator_loss(self.fake_score, self.process, x, batch.cond, rng)
            weights["gan"] = self.config.lambda_gan
        logs = score_diagnostics(self.teacher.weighting, mu_base, unguided, mu_fake, x.detach(), t)
        return LossOutput(terms=terms, weights=weights, samples=x.detach(), logs=logs)

    def fake_score_loss(self, k: int, batch: Batch, rng: Random) -> LossOutput:
        """The denoising loss of the generator's samples, and the discriminator's loss."""
        x = batch.samples
        if x is None:
            with torch.no_grad():
                x = self.generate(k, batch, rng)
        t, x_t = sample_noised(self.process, x, rng)
        mu_fake = self.fake_score(x_t, t, batch.cond)
        terms, weights = {"denoise": denoising_loss(mu_fake, x, self.teacher.weighting(t))}, {"denoise": 1.0}
        logs: dict[str, Tensor] = {}
        if self.config.needs_data:
            terms["disc"], logs = noised_discriminator_loss(self.fake_score, self.process, x, batch, rng)
            weights["disc"] = self.config.lambda_telling
        return LossOutput(terms=terms, weights=weights, logs=logs)

    def generate(self, k: int, batch: Batch, rng: Random) -> Tensor:
        """Samples of the generator's denoising step k, [b, *dims]."""
        z = rng.normal(batch.size, *self.teacher.shape)
        return backward_simulation(self.generator, self.start, self.process, self.steps, z, batch.cond, rng, k)

    def evaluate_fake(self, x_t: Tensor, t: Tensor, cond: Cond) -> tuple[Tensor, Tensor]:
        """mu_fake [b, *dims] and the factor of each row's gradient [b], from one pass."""
        if self.weight is None:
            return self.fake_score(x_t, t, cond), torch.ones_like(t, dtype=torch.float32)
        mu_fake, logits = self.fake_score(x_t, t, cond, output="both")
        return mu_fake, self.weight(logits, t)

    def after_step(self, step: int) -> None:
        if self.weight is not None:
            self.weight.update()

    def monitor_samples(self, batch: Batch, rng: Random) -> Tensor | None:
        """Samples of all denoising steps: those of the phases are of the step that is trained."""
        if not self.steps.later_times:
            return None
        with torch.no_grad():
            return self.generate(len(self.steps.later_times), batch, rng)

    def health_losses(self, logs: Mapping[str, float]) -> tuple[float | None, float | None]:
        return score_losses(logs)


class GradientWeight(nn.Module, ABC):
    """The factor by which each row's distribution matching gradient is multiplied, with state that follows training."""

    @abstractmethod
    def forward(self, logits: Tensor, t: Tensor) -> Tensor:
        """Factors [b] from the discriminator's logits [b] at times t [b]."""

    @abstractmethod
    def update(self) -> None:
        """Updates the state at the end of a training step; every rank calls it."""


class DMD2Config(MultiStepConfig):
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
    name: Literal["dmd2"]
    weighting: Weighting = "eq8"
    min_fraction: float = Field(default=0.02, ge=0, le=1)
    max_fraction: float = Field(default=0.98, ge=0, le=1)
    fake_score_updates_per_step: int = Field(default=5, ge=1, le=100)
    lambda_gan: float = Field(default=3e-3, ge=0)
    lambda_telling: float = Field(default=1e-2, ge=0)
    step_held_for: int = Field(default=10, ge=1, le=10**9)

    @model_validator(mode="after")
    def check(self) -> "DMD2Config":
        """Validates settings that depend on each other."""
        require_range(self)
        if self.lambda_gan > 0 and self.lambda_telling == 0:
            raise ValueError("lambda_telling: found 0, expected a positive number: with lambda_gan there is a GAN")
        return self

    @property
    def needs_data(self) -> bool:
        return self.lambda_gan > 0

    @property
    def has_discriminator(self) -> bool:
        return self.needs_data

    def build_gradient_weight(self, inputs: MethodInputs) -> "GradientWeight | None":
        """The factor of each row's gradient; None = 1."""
        return None

    def build(self, inputs: MethodInputs) -> DMD2:
        return DMD2(inputs, self)
