"""Distribution Matching Distillation: Algorithm 1 of arXiv:2311.18828v4."""

from collections.abc import Callable, Mapping
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
from unistep.methods.config import ComparesImages, Distance
from unistep.methods.ingredients import Ingredients, guided
from unistep.methods.matching import compare_scores, evaluate_base, levels, noise_uniformly, require_range
from unistep.teachers.teacher import Teacher
from unistep.types import Cond, joined

# ---------------------------------------------------------------------------------------------------- configuration


class DMDConfig(ComparesImages):
    """Settings of DMD; the defaults are the paper's (appendix B).

    `lambda_dm: 0` is the ablation without distribution matching, `lambda_reg: 0` the one without regression. With
    `dm_from_step` the generator first learns from pairs alone; the fake score starts `fake_score_from_step` to meet
    the generator it will judge. With `match_pairs` the outputs for the pairs' noise join the batch of distribution
    matching and of the fake score, as the paper does for LAION.
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
        """Settings that contradict each other are refused."""
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

    def build(self, made_of: Ingredients) -> "DMD":
        generator, fake_score = made_of.generator(), made_of.denoiser()
        return DMD(made_of.teacher, generator, fake_score, self, made_of.regression, made_of.guidance)


# -------------------------------------------------------------------------------------------------------- the method


class DMD(Method):
    """Generator and fake score, both started from the teacher, learning in turns.

    The real score is the guided teacher's, the fake score is never guided (section 3.4): the scale is baked into G.

    Args:
        teacher: mu_base, frozen.
        generator: G(z, cond), started from the teacher.
        fake_score: mu_fake(x_t, t, cond), started from the teacher.
        config: settings.
        regression: distance of Eq. 9, (x, y) -> [b]; needed when `config.needs_pairs`.
        guidance: scale of the teacher's guidance, 1 = off; the pairs must have been made with the same.

    Raises:
        UserError: for guidance of a teacher without conditions.
    """

    averaged = "generator"
    pair_phases = ("generator", "regression")

    def __init__(
        self,
        teacher: Teacher,
        generator: nn.Module,
        fake_score: nn.Module,
        config: DMDConfig,
        regression: Callable[[Tensor, Tensor], Tensor] | None = None,
        guidance: float = 1.0,
    ):
        self.mu_base = guided(teacher, guidance)
        self.teacher, self.config, self.regression = teacher, config, regression
        self.generator, self.fake_score = generator, fake_score
        self.networks = {"generator": generator, "fake_score": fake_score}
        if config.match_pairs:  # fake scores that make samples of their own make those of pairs, too
            updates = updates_of("fake_score", config.fake_score_updates_per_step)
            self.pair_phases = (*self.pair_phases, *(phase.name for phase in updates))

    def phases(self, step: int) -> tuple[Phase, ...]:
        """Generator first, then the fake score on the same samples, as in Algorithm 1."""
        matching = self.config.lambda_dm > 0 and step >= self.config.dm_from_step
        generator = Phase(name="generator" if matching else "regression", trains=("generator",))
        if self.config.lambda_dm == 0 or step < self.config.fake_score_from_step:
            return (generator,)
        return generator, *updates_of("fake_score", self.config.fake_score_updates_per_step, reuses_samples=matching)

    def milestones(self) -> Mapping[str, tuple[int, ...]]:
        """Where the generator's distribution matching is switched on, and where the fake score begins to learn."""
        if self.config.lambda_dm == 0:
            return {}
        begins = {"generator": self.config.dm_from_step}
        if self.config.fake_score_updates_per_step > 0:
            begins["fake_score"] = self.config.fake_score_from_step
        return {network: (step,) for network, step in begins.items() if step > 0}

    def loss(self, phase: Phase, batch: Batch, rng: Random) -> LossOutput:
        if phase.name == "regression":
            return LossOutput(terms={"reg": self.regress(batch)}, weights={"reg": self.config.lambda_reg})
        if phase.name == "generator":
            return self.generator_loss(batch, rng)
        return self.fake_score_loss(batch, rng)

    # ------------------------------------------------------------------------------------------------------- phases

    def generator_loss(self, batch: Batch, rng: Random) -> LossOutput:
        """L_KL + lambda_reg L_reg (Algorithm 1, lines 5-9)."""
        process = self.teacher.process
        x, cond = self.samples(batch, rng)
        t, x_t = noise_uniformly(process, x.detach(), rng, *levels(process, self.config), first_rows=batch.size)
        with torch.no_grad():
            mu_base, unguided = evaluate_base(self.mu_base, x_t, t, cond)
            mu_fake = self.fake_score(x_t, t, cond)
        alpha, sigma = process.alpha(t), process.sigma(t)
        gradient = distribution_matching_gradient(x, mu_base, mu_fake, alpha, sigma, self.config.weighting)
        terms, weights = {"dm": distribution_matching_loss(x, gradient)}, {"dm": self.config.lambda_dm}
        if self.config.needs_pairs:
            x_ref = x[batch.size :] if self.config.match_pairs else None
            terms["reg"], weights["reg"] = self.regress(batch, x_ref), self.config.lambda_reg
        samples = x.detach()
        logs = compare_scores(self.teacher.weighting, mu_base, unguided, mu_fake, samples, t)
        return LossOutput(terms=terms, weights=weights, samples=samples, cond=cond, logs=logs)

    def fake_score_loss(self, batch: Batch, rng: Random) -> LossOutput:
        """Eq. 6 on detached samples, with its own noise over the whole range of t (Algorithm 1, lines 11-14)."""
        x, cond = batch.samples, batch.cond
        if x is None:
            with torch.no_grad():
                x, cond = self.samples(batch, rng)
        t, x_t = noise_uniformly(self.teacher.process, x, rng, first_rows=batch.size)
        mu_fake = self.fake_score(x_t, t, cond)
        loss = denoising_loss(mu_fake, x, self.teacher.weighting(t))
        return LossOutput(terms={"denoise": loss}, weights={"denoise": 1.0})

    # ------------------------------------------------------------------------------------------------------- pieces

    def samples(self, batch: Batch, rng: Random) -> tuple[Tensor, Cond]:
        """x = G(z) and its condition; with `match_pairs` x_ref = G(z_ref) after it, in one pass (Algorithm 1)."""
        z, cond = rng.normal(batch.size, *self.teacher.shape), batch.cond
        if self.config.match_pairs:
            if batch.pair_z is None:
                raise ValueError("DMD: match_pairs needs a stream of pairs")
            z, cond = torch.cat([z, batch.pair_z]), joined(batch.cond, batch.pair_cond)
        return self.generator(z, cond), cond

    def regress(self, batch: Batch, x_ref: Tensor | None = None) -> Tensor:
        """Distance of x_ref = G(z_ref), made here unless it is there, to the teacher's y_ref (Eq. 9), [pair rows]."""
        if self.regression is None or batch.pair_z is None or batch.pair_x is None:
            raise ValueError("DMD: lambda_reg > 0 needs a regression loss and a stream of pairs")
        x = self.generator(batch.pair_z, batch.pair_cond) if x_ref is None else x_ref
        return self.regression(x, batch.pair_x)
