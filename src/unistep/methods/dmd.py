"""Distribution Matching Distillation: Algorithm 1 of arXiv:2311.18828v4."""

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from unistep.errors import UserError
from unistep.guidance import GuidedDenoiser
from unistep.losses.denoising import denoising_loss
from unistep.losses.distribution_matching import (
    Weighting,
    distribution_matching_gradient,
    distribution_matching_loss,
)
from unistep.losses.regression import RegressionName
from unistep.methods.base import Batch, LossOutput, Phase, Random
from unistep.teachers.teacher import Teacher
from unistep.types import bcast

# ---------------------------------------------------------------------------------------------------- configuration


class DMDConfig(BaseModel):
    """Settings of DMD; the defaults are the paper's (appendix B).

    `lpips_weights` names the files of VGG16 (torchvision's `vgg16-397923af.pth`) and of LPIPS (its authors' `vgg.pth`),
    or one file with the tensors of both; without it the piq library brings them (extra `lpips`).
    `lambda_dm: 0` is the ablation without distribution matching, `lambda_reg: 0` the one without regression. With
    `dm_from_step` the generator first learns from pairs alone; the fake score starts `fake_score_from_step` to meet
    the generator it will judge.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Literal["dmd"] = "dmd"
    lambda_dm: float = Field(default=1.0, ge=0)
    lambda_reg: float = Field(default=0.25, ge=0)
    weighting: Weighting = "eq8"
    min_fraction: float = Field(default=0.02, ge=0, le=1)
    max_fraction: float = Field(default=0.98, ge=0, le=1)
    fake_score_updates_per_step: int = Field(default=1, ge=0)
    regression: RegressionName = "lpips"
    lpips_weights: tuple[str, ...] = ()
    perceptual_network: str | None = None
    pixel_weight: float = Field(default=1.0, ge=0)
    dm_from_step: int = Field(default=0, ge=0)
    fake_score_from_step: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def check(self) -> "DMDConfig":
        """Settings that contradict each other are refused."""
        if self.lambda_dm == 0 and self.lambda_reg == 0:
            raise ValueError("lambda_dm and lambda_reg: found 0 and 0, expected at least one positive")
        if self.lpips_weights and self.regression != "lpips":
            raise ValueError(f"lpips_weights: found a value, expected nothing: regression is {self.regression}")
        if self.min_fraction >= self.max_fraction:
            raise ValueError(
                f"min_fraction: found {self.min_fraction}, expected less than max_fraction {self.max_fraction}"
            )
        if self.lambda_reg == 0 and self.dm_from_step > 0:
            raise ValueError("dm_from_step: found a positive step but lambda_reg is 0, expected pairs before it")
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


# -------------------------------------------------------------------------------------------------------- the method


def guided(teacher: Teacher, scale: float) -> Callable[..., Tensor]:
    """mu_base as distribution matching asks it: the teacher, or the teacher guided by `scale`."""
    if scale == 1:
        return teacher
    if teacher.conditioner is None:
        raise UserError(f"guidance: found {scale:g}, expected 1: the teacher takes no conditions")
    return GuidedDenoiser(teacher.denoiser, teacher.conditioner.null, scale)


class DMD:
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

    def phases(self, step: int) -> tuple[Phase, ...]:
        """Generator first, then the fake score on the same samples, as in Algorithm 1."""
        matching = self.config.lambda_dm > 0 and step >= self.config.dm_from_step
        generator = Phase(name="generator" if matching else "regression", trains=("generator",))
        if self.config.lambda_dm == 0 or step < self.config.fake_score_from_step:
            return (generator,)
        return generator, *(
            Phase(
                name=f"fake_score.{i}" if i else "fake_score",
                trains=("fake_score",),
                reuses_samples=matching and i == 0,
            )
            for i in range(self.config.fake_score_updates_per_step)
        )

    def milestones(self) -> tuple[int, ...]:
        """The step at which distribution matching is switched on."""
        return (self.config.dm_from_step,) if self.config.lambda_dm > 0 and self.config.dm_from_step > 0 else ()

    def loss(self, phase: Phase, batch: Batch, rng: Random) -> LossOutput:
        if phase.name == "regression":
            return LossOutput(terms={"reg": self.regress(batch)}, weights={"reg": self.config.lambda_reg})
        if phase.name == "generator":
            return self.generator_loss(batch, rng)
        return self.fake_score_loss(batch, rng)

    # ------------------------------------------------------------------------------------------------------- phases

    def generator_loss(self, batch: Batch, rng: Random) -> LossOutput:
        """L_KL + lambda_reg L_reg (Algorithm 1, lines 5-9)."""
        x = self.generator(rng.normal(batch.size, *self.teacher.shape), batch.cond)
        t, x_t = self.noise(x.detach(), rng, *self.levels())
        with torch.no_grad():
            mu_base, mu_fake = self.mu_base(x_t, t, batch.cond), self.fake_score(x_t, t, batch.cond)
        alpha, sigma = self.teacher.process.alpha(t), self.teacher.process.sigma(t)
        gradient = distribution_matching_gradient(x, mu_base, mu_fake, alpha, sigma, self.config.weighting)
        terms, weights = {"dm": distribution_matching_loss(x, gradient)}, {"dm": self.config.lambda_dm}
        if self.config.needs_pairs:
            terms["reg"], weights["reg"] = self.regress(batch), self.config.lambda_reg
        samples = x.detach()
        logs = self.compare_scores(mu_base, mu_fake, samples, t)
        return LossOutput(terms=terms, weights=weights, samples=samples, logs=logs)

    def fake_score_loss(self, batch: Batch, rng: Random) -> LossOutput:
        """Eq. 6 on detached samples, with its own noise over the whole range of t (Algorithm 1, lines 11-14)."""
        x = batch.samples
        if x is None:
            with torch.no_grad():
                x = self.generator(rng.normal(batch.size, *self.teacher.shape), batch.cond)
        t, x_t = self.noise(x, rng, 0, self.teacher.process.num_bins - 1)
        mu_fake = self.fake_score(x_t, t, batch.cond)
        loss = denoising_loss(mu_fake, x, self.teacher.weighting(t))
        return LossOutput(terms={"denoise": loss}, weights={"denoise": 1.0})

    # ------------------------------------------------------------------------------------------------------- pieces

    def regress(self, batch: Batch) -> Tensor:
        """Distance of G(z_ref) to the teacher's y_ref (Eq. 9), [pair rows]."""
        if self.regression is None or batch.pair_z is None or batch.pair_x is None:
            raise ValueError("DMD: lambda_reg > 0 needs a regression loss and a stream of pairs")
        return self.regression(self.generator(batch.pair_z, batch.pair_cond), batch.pair_x)

    @torch.no_grad()
    def compare_scores(self, mu_base: Tensor, mu_fake: Tensor, x: Tensor, t: Tensor) -> dict[str, Tensor]:
        """How far apart the two scores are, and how well each denoises the generator's samples.

        A fake score that is up to date denoises them at least as well as the teacher, which never saw them.
        """
        weight = self.teacher.weighting(t)
        return {
            "score_gap": (mu_fake - mu_base).abs().mean(),
            "fake_denoise": denoising_loss(mu_fake, x, weight).mean(),
            "teacher_denoise": denoising_loss(mu_base, x, weight).mean(),
        }

    def levels(self) -> tuple[int, int]:
        """First and last level of distribution matching: 20 and 980 of 0..999 at the paper's 2 % and 98 %."""
        bins = self.teacher.process.num_bins
        return round(self.config.min_fraction * bins), min(round(self.config.max_fraction * bins), bins - 1)

    def noise(self, x: Tensor, rng: Random, low: int, high: int) -> tuple[Tensor, Tensor]:
        """t uniform over the training grid's levels low..high, and x_t = alpha_t x + sigma_t eps (Eq. 3)."""
        process = self.teacher.process
        t = process.time(rng.integers(len(x), low, high) / (process.num_bins - 1)).to(x.device)
        eps = rng.normal(*x.shape).to(x.device)
        return t, bcast(process.alpha(t), x) * x + bcast(process.sigma(t), x) * eps
