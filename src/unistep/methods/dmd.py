"""Distribution Matching Distillation: Algorithm 1 of arXiv:2311.18828v4."""

from collections.abc import Mapping, Set
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from unistep.losses.denoising import denoising_loss
from unistep.losses.distribution_matching import (
    Weighting,
    distribution_matching_gradient,
    distribution_matching_loss,
)
from unistep.methods.base import Batch, LossOutput, Method, Phase, Random, Stream, repeat_update
from unistep.methods.config import ComparesImages, Distance
from unistep.methods.inputs import MethodInputs
from unistep.methods.scores import (
    require_range,
    sample_noised,
    score_diagnostics,
    score_losses,
    timestep_range,
)
from unistep.types import Cond, cat_conditions


class DMD(Method):
    """Trains a one-step generator G and the fake score in alternation, both initialized from the teacher.

    The real score is the guided teacher's, the fake score is never guided (section 3.4): G learns the guidance scale.

    Args:
        inputs: teacher, networks, guidance and the distance of Eq. 9.
        config: settings.

    Raises:
        UserError: for guidance of a teacher without conditions.
    """

    ema_network = "generator"

    def __init__(self, inputs: MethodInputs, config: "DMDConfig"):
        self.teacher, self.mu_base, self.config = inputs.teacher, inputs.mu_base, config
        self.process, self.regression = inputs.teacher.process, inputs.regression
        self.generator, self.fake_score = inputs.build_generator(), inputs.build_denoiser()
        self.networks = {"generator": self.generator, "fake_score": self.fake_score}

    # ------------------------------------------------------------------------------------------------- Algorithm 1

    def generator_loss(self, batch: Batch, rng: Random) -> LossOutput:
        """lambda_dm D_KL + lambda_reg L_reg (Algorithm 1, lines 5 to 10)."""
        z = rng.normal(batch.size, *self.teacher.shape)
        x = self.generator(z, batch.cond)
        dm, logs = self.distribution_matching(x, batch.cond, rng)
        terms, weights = {"dm": dm}, {"dm": self.config.lambda_dm}
        if self.config.needs_pairs:
            z_ref, y_ref, cond_ref = batch.pairs()
            x_ref = self.generator(z_ref, cond_ref)
            terms["reg"], weights["reg"] = self.regress(x_ref, y_ref), self.config.lambda_reg
        return LossOutput(terms=terms, weights=weights, samples=x.detach(), logs=logs)

    def distribution_matching(
        self, x: Tensor, cond: Cond, rng: Random, first_rows: int | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The distribution matching loss [b] of samples with gradients, and its diagnostics (Algorithm 2).

        `first_rows` is the number of rows of x that are not of pairs, see `sample_noised`.
        """
        low, high = timestep_range(self.process, self.config)
        t, x_t = sample_noised(self.process, x.detach(), rng, low, high, first_rows)  # Eq. 3
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        with torch.no_grad():
            mu_base, unguided = self.mu_base.with_unguided(x_t, t, cond)
            mu_fake = self.fake_score(x_t, t, cond)
        gradient = distribution_matching_gradient(x, mu_base, mu_fake, alpha, sigma, self.config.weighting)  # Eq. 7, 8
        logs = score_diagnostics(self.teacher.weighting, mu_base, unguided, mu_fake, x.detach(), t)
        return distribution_matching_loss(x, gradient), logs

    def regress(self, x_ref: Tensor, y_ref: Tensor) -> Tensor:
        """The distance of x_ref = G(z_ref) to the teacher's ODE solution y_ref (Eq. 9), [b]."""
        if self.regression is None:
            raise ValueError("DMD: found no distance, expected one: lambda_reg is positive")
        return self.regression(x_ref, y_ref)

    def fake_score_loss(self, batch: Batch, rng: Random) -> LossOutput:
        """The denoising loss of Eq. 6 on detached samples, t over the whole grid (Algorithm 1, lines 11 to 14)."""
        x, cond = batch.samples, batch.cond
        if x is None:
            with torch.no_grad():
                x, cond = self.generate(batch, rng)
        t, x_t = sample_noised(self.process, x, rng, first_rows=batch.size)
        mu_fake = self.fake_score(x_t, t, cond)
        loss = denoising_loss(mu_fake, x, self.teacher.weighting(t))
        return LossOutput(terms={"denoise": loss}, weights={"denoise": 1.0})

    # ----------------------------------------------------------------------------------------- variants and schedule

    def regression_loss(self, batch: Batch, rng: Random) -> LossOutput:
        """L_reg alone, before distribution matching begins."""
        z_ref, y_ref, cond_ref = batch.pairs()
        reg = self.regress(self.generator(z_ref, cond_ref), y_ref)
        return LossOutput(terms={"reg": reg}, weights={"reg": self.config.lambda_reg})

    def matched_pairs_loss(self, batch: Batch, rng: Random) -> LossOutput:
        """`generator_loss` with the samples of the pairs' noise in the batch of distribution matching (LAION)."""
        x, cond = self.generate(batch, rng)
        dm, logs = self.distribution_matching(x, cond, rng, first_rows=batch.size)
        _, y_ref, _ = batch.pairs()
        terms = {"dm": dm, "reg": self.regress(x[batch.size :], y_ref)}
        weights = {"dm": self.config.lambda_dm, "reg": self.config.lambda_reg}
        return LossOutput(terms=terms, weights=weights, samples=x.detach(), cond=cond, logs=logs)

    def generate(self, batch: Batch, rng: Random) -> tuple[Tensor, Cond]:
        """x = G(z) and its condition; with `match_pairs` followed by x_ref = G(z_ref), in one pass."""
        z, cond = rng.normal(batch.size, *self.teacher.shape), batch.cond
        if self.config.match_pairs:
            z_ref, _, cond_ref = batch.pairs()
            z, cond = torch.cat([z, z_ref]), cat_conditions(cond, cond_ref)
        return self.generator(z, cond), cond

    def phases(self, step: int) -> tuple[Phase, ...]:
        """The generator, then the fake score on the same samples, as in Algorithm 1."""
        config = self.config
        pairs: Set[Stream] = {"pairs"} if config.needs_pairs else set()
        matching = config.lambda_dm > 0 and step >= config.dm_from_step
        loss = self.matched_pairs_loss if config.match_pairs else self.generator_loss
        generator = Phase(
            name="generator" if matching else "regression", trains=("generator",), inputs=pairs,
            loss=loss if matching else self.regression_loss,
        )  # fmt: skip
        if config.lambda_dm == 0 or step < config.fake_score_from_step:
            return (generator,)
        fake_score = Phase(
            name="fake_score", trains=("fake_score",), loss=self.fake_score_loss, reuses_samples=matching,
            inputs=pairs if config.match_pairs else set(),
        )  # fmt: skip
        return generator, *repeat_update(fake_score, config.fake_score_updates_per_step)

    def milestones(self) -> Mapping[str, tuple[int, ...]]:
        """The steps at which distribution matching begins for the generator, and training for the fake score."""
        if self.config.lambda_dm == 0:
            return {}
        begins = {"generator": self.config.dm_from_step}
        if self.config.fake_score_updates_per_step > 0:
            begins["fake_score"] = self.config.fake_score_from_step
        return {network: (step,) for network, step in begins.items() if step > 0}

    def health_losses(self, logs: Mapping[str, float]) -> tuple[float | None, float | None]:
        return score_losses(logs)


class DMDConfig(ComparesImages):
    """Settings of DMD; the defaults are the paper's (appendix B).

    `lambda_dm: 0` is the ablation without distribution matching, `lambda_reg: 0` the one without regression. Before
    `dm_from_step` the generator learns from pairs alone; the fake score is trained from `fake_score_from_step` on, so
    that it knows the generator when distribution matching begins. With `match_pairs` the samples of the pairs' noise
    join the batch of distribution matching and of the fake score, as the paper does for LAION.
    """

    name: Literal["dmd"] = "dmd"
    milestones = ("dm_from_step", "fake_score_from_step")
    staged = (
        *ComparesImages.staged, "lambda_dm", "lambda_reg", "weighting", "min_fraction", "max_fraction",
        "fake_score_updates_per_step", "match_pairs",
    )  # fmt: skip
    lambda_dm: float = Field(default=1.0, ge=0)
    lambda_reg: float = Field(default=0.25, ge=0)
    weighting: Weighting = "eq8"
    min_fraction: float = Field(default=0.02, ge=0, le=1)
    max_fraction: float = Field(default=0.98, ge=0, le=1)
    fake_score_updates_per_step: int = Field(default=1, ge=0, le=100)
    dm_from_step: int = Field(default=0, ge=0, le=10**9)
    fake_score_from_step: int = Field(default=0, ge=0, le=10**9)
    match_pairs: bool = False

    @model_validator(mode="after")
    def check(self) -> "DMDConfig":
        """Validates settings that depend on each other."""
        if self.lambda_dm == 0 and self.lambda_reg == 0:
            raise ValueError("lambda_dm and lambda_reg: found 0 and 0, expected at least one positive")
        require_range(self)
        if self.lambda_reg == 0 and self.dm_from_step > 0:
            raise ValueError("dm_from_step: found a positive step but lambda_reg is 0, expected pairs before it")
        if self.match_pairs and 0 in (self.lambda_dm, self.lambda_reg):
            raise ValueError(
                f"match_pairs: found true with lambda_dm {self.lambda_dm:g} and lambda_reg {self.lambda_reg:g}, "
                "expected both positive: without them there is nothing to match, or there are no pairs"
            )
        if self.fake_score_from_step > self.dm_from_step:
            raise ValueError(
                f"fake_score_from_step: found {self.fake_score_from_step}, expected at most dm_from_step "
                f"{self.dm_from_step}; the generator needs the fake score from there on"
            )
        return self

    @property
    def needs_pairs(self) -> bool:
        """Whether the regression term is on."""
        return self.lambda_reg > 0

    @property
    def distance(self) -> Distance | None:
        return super().distance if self.needs_pairs else None

    def check_length(self, steps: int) -> None:
        if self.lambda_dm > 0 and self.dm_from_step >= steps:
            raise ValueError(
                f"dm_from_step: found {self.dm_from_step}, expected less than training.steps {steps}: distribution "
                "matching would never begin; set method.lambda_dm to 0 if meant"
            )

    def build(self, inputs: MethodInputs) -> "DMD":
        return DMD(inputs, self)
