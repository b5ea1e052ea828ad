"""Knowledge distillation: regression on noise-image pairs and nothing else (Luhman, Luhman 2021, arXiv:2101.02388)."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from unistep.methods.base import Batch, LossOutput, Method, Phase, Random
from unistep.methods.config import ComparesImages
from unistep.methods.ingredients import Ingredients

# ----------------------------------------------------------------------------------------------------- configuration


class KnowledgeConfig(ComparesImages):
    """Settings of knowledge distillation: the distance. DMD's paper calls it "without distribution matching"."""

    name: Literal["knowledge"]

    @property
    def needs_pairs(self) -> bool:
        return True

    def build(self, made_of: Ingredients) -> "Knowledge":
        if made_of.regression is None:
            raise ValueError("knowledge: found no distance, expected one")
        return Knowledge(made_of.generator(), made_of.regression)


# -------------------------------------------------------------------------------------------------------- the method


class Knowledge(Method):
    """G learns the teacher's own answer to each noise, E[ d(G(z), x) ] over the pairs (z, x).

    This is DMD at lambda_dm 0 and lambda_reg 1, step for step and bit for bit, without the copy of the teacher that
    DMD's fake score would be.

    Args:
        generator: G(z, cond), started from the teacher.
        regression: the distance (x, y) -> [b].
    """

    averaged = "generator"
    pair_phases = ("regression",)

    def __init__(self, generator: nn.Module, regression: Callable[[Tensor, Tensor], Tensor]):
        self.generator, self.regression = generator, regression
        self.networks = {"generator": generator}

    def phases(self, step: int) -> tuple[Phase, ...]:
        """Always the one."""
        return (Phase(name="regression", trains=("generator",)),)

    # ------------------------------------------------------------------------------------------------------- phases

    def loss(self, phase: Phase, batch: Batch, rng: Random) -> LossOutput:
        if batch.pair_z is None or batch.pair_x is None:
            raise ValueError("knowledge: found a batch without pairs")
        x = self.generator(batch.pair_z, batch.pair_cond)
        loss = self.regression(x, batch.pair_x)
        return LossOutput(terms={"reg": loss}, weights={"reg": 1.0}, samples=x.detach())
