"""Knowledge distillation: regression on noise-image pairs alone (Luhman and Luhman 2021, arXiv:2101.02388)."""

from typing import Literal

from unistep.methods.base import Batch, LossOutput, Method, Phase, Random
from unistep.methods.config import ComparesImages
from unistep.methods.inputs import MethodInputs


class Knowledge(Method):
    """Minimizes E[ d(G(z), x) ] over the teacher's noise-image pairs (z, x).

    This is DMD at lambda_dm 0 and lambda_reg 1, step for step and bit for bit, without DMD's fake score.

    Args:
        inputs: networks and distance.
        config: settings.

    Raises:
        ValueError: without a distance.
    """

    ema_network = "generator"

    def __init__(self, inputs: MethodInputs, config: "KnowledgeConfig"):
        self.generator, self.distance = inputs.build_generator(), inputs.distance
        self.networks = {"generator": self.generator}

    def phases(self, step: int) -> tuple[Phase, ...]:
        return (Phase(name="regression", trains=("generator",), inputs={"pairs"}, loss=self.loss),)

    def loss(self, batch: Batch, rng: Random) -> LossOutput:
        """d(G(z), x) of each pair, [b]."""
        z, x, cond = batch.pairs()
        y = self.generator(z, cond)
        return LossOutput(terms={"reg": self.distance(y, x)}, weights={"reg": 1.0}, samples=y.detach())


class KnowledgeConfig(ComparesImages):
    """Settings of knowledge distillation: the distance. DMD's paper calls it "without distribution matching"."""

    name: Literal["knowledge"]

    @property
    def needs_pairs(self) -> bool:
        return True

    def build(self, inputs: MethodInputs) -> Knowledge:
        return Knowledge(inputs, self)
