"""Score identity distillation, SiD (arXiv:2404.04057): data-free, the gradient passes through both scores."""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from unistep.diffusion.process.base import NoiseProcess
from unistep.diffusion.process.noising import noised
from unistep.losses.denoising import denoising_loss
from unistep.losses.score_identity import score_identity_loss
from unistep.methods.base import Batch, LossOutput, Method, Phase, Random, repeat_update
from unistep.methods.config import MethodConfig, refuse_unused, require_edm
from unistep.methods.inputs import MethodInputs
from unistep.methods.scores import (
    require_range,
    sample_noised,
    score_diagnostics,
    score_losses,
    timestep_range,
)
from unistep.networks.precision import require_gradient_range


class SiD(Method):
    """Trains the fake score and the generator in alternation; G minimizes the Fisher divergence to the teacher.

    Args:
        inputs: teacher, networks, guidance of the real score.
        config: settings.

    Raises:
        UserError: for lognormal levels with a process whose time is not sigma, guidance without conditions, or a
            teacher in float16, which gradients pass through.
    """

    ema_network = "generator"

    def __init__(self, inputs: MethodInputs, config: "SiDConfig"):
        config.require_compatible(inputs)
        self.teacher, self.mu_base, self.config = inputs.teacher, inputs.mu_base, config
        self.process, self.timesteps = inputs.teacher.process, timestep_range(inputs.teacher.process, config)
        self.generator, self.fake_score = inputs.build_generator(), inputs.build_denoiser()
        self.networks = {"generator": self.generator, "fake_score": self.fake_score}

    def phases(self, step: int) -> tuple[Phase, ...]:
        """The generator, then the fake score, first on the same samples (the paper begins with the fake score)."""
        fake_score = Phase(name="fake_score", trains=("fake_score",), loss=self.fake_score_loss, reuses_samples=True)
        return (
            Phase(name="generator", trains=("generator",), loss=self.generator_loss),
            *repeat_update(fake_score, self.config.fake_score_updates_per_step),
        )

    def generator_loss(self, batch: Batch, rng: Random) -> LossOutput:
        """The score identity loss (Algorithm 1); gradients pass through x_t and both scores."""
        x = self.generator(rng.normal(batch.size, *self.teacher.shape), batch.cond)
        t, x_t = sample_noised(self.process, x, rng, *self.timesteps)
        mu_base, unguided = self.mu_base.with_unguided(x_t, t, batch.cond)
        mu_fake = self.fake_score(x_t, t, batch.cond)
        loss = score_identity_loss(x, mu_base, mu_fake, self.config.alpha)
        logs = score_diagnostics(self.teacher.weighting, mu_base, unguided, mu_fake, x.detach(), t)
        return LossOutput(terms={"sid": loss}, weights={"sid": 1.0}, samples=x.detach(), logs=logs)

    def fake_score_loss(self, batch: Batch, rng: Random) -> LossOutput:
        """The denoising loss of the generator's samples, weighted as the teacher was trained."""
        x = batch.samples
        if x is None:
            with torch.no_grad():
                x = self.generator(rng.normal(batch.size, *self.teacher.shape), batch.cond)
        t, x_t = self.config.sample_fake_noised(self.process, x, rng)
        loss = denoising_loss(self.fake_score(x_t, t, batch.cond), x, self.teacher.weighting(t))
        return LossOutput(terms={"denoise": loss}, weights={"denoise": 1.0})

    def health_losses(self, logs: Mapping[str, float]) -> tuple[float | None, float | None]:
        return score_losses(logs)


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
        """Validates settings that depend on each other."""
        require_range(self)
        if self.fake_levels == "uniform":
            refuse_unused(self, ("P_mean", "P_std"), "fake_levels is uniform")
        return self

    def require_compatible(self, inputs: MethodInputs) -> None:
        """Validates the teacher against these settings.

        Raises:
            UserError: for lognormal levels with a process whose time is not sigma, or a teacher in float16.
        """
        if self.fake_levels == "lognormal":
            require_edm(inputs.teacher.process, "method.fake_levels: found lognormal", "use fake_levels uniform")
        require_gradient_range(inputs.teacher.denoiser, f"method.name: {self.name}")

    def sample_fake_noised(self, process: NoiseProcess, x: Tensor, rng: Random) -> tuple[Tensor, Tensor]:
        """Draws t [b] and x_t [b, *dims] for the fake score."""
        if self.fake_levels == "uniform":
            return sample_noised(process, x, rng)
        sigma = (self.P_mean + self.P_std * rng.normal(len(x)).to(x.device)).exp()
        return sigma, noised(process, x, sigma, rng.normal(*x.shape).to(x.device))

    def build(self, inputs: MethodInputs) -> Method:
        return SiD(inputs, self)
