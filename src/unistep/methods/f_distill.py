"""f-distill (arXiv:2502.15681): DMD2 with the weighting of another f-divergence, from its discriminator."""

from typing import Literal

from pydantic import model_validator
from torch import Tensor

from unistep.losses.f_divergence import Divergence, divergence_weight
from unistep.methods.dmd2 import DMD2, MatchingConfig
from unistep.methods.ingredients import Ingredients
from unistep.types import Cond, bcast

# ----------------------------------------------------------------------------------------------------- configuration


class FDistillConfig(MatchingConfig):
    """Settings of f-distill: those of DMD2 and the divergence; the discriminator is always there."""

    name: Literal["f_distill"]
    divergence: Divergence = "js"

    @model_validator(mode="after")
    def check_discriminator(self) -> "FDistillConfig":
        """The weighting is the discriminator's."""
        if self.lambda_gan == 0:
            raise ValueError("lambda_gan: found 0, expected a positive number: the discriminator gives the weighting")
        return self

    def build(self, made_of: Ingredients) -> "FDistill":
        return FDistill(made_of, self)


# -------------------------------------------------------------------------------------------------------- the method


class FDistill(DMD2):
    """DMD2 whose gradient at x_t is multiplied by h(p_real / p_fake).

    Args:
        made_of: teacher, networks, guidance.
        config: settings.
    """

    def __init__(self, made_of: Ingredients, config: FDistillConfig):
        super().__init__(made_of, config)
        self.divergence: Divergence = config.divergence

    # ------------------------------------------------------------------------------------------------------- pieces

    def gradient(self, x: Tensor, x_t: Tensor, t: Tensor, mu_base: Tensor, mu_fake: Tensor, cond: Cond) -> Tensor:
        """DMD's gradient times h(r), normalised over the rows at hand."""
        logits = self.fake_score(x_t, t, cond, judged=True)[1]
        weight = bcast(divergence_weight(logits, self.divergence), x)
        return weight * super().gradient(x, x_t, t, mu_base, mu_fake, cond)
