"""Teaching a teacher: denoising score matching as EDM does it (arXiv:2206.00364, Table 1)."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from unistep.losses.denoising import denoising_loss
from unistep.methods.base import Batch, LossOutput, Method, Phase, Random
from unistep.networks.preconditioning import EDMDenoiser
from unistep.teachers.diffusers.denoiser import DiffusersDenoiser
from unistep.teachers.teacher import Conditioner
from unistep.types import Cond, bcast


class TeachConfig(BaseModel):
    """Noise distribution and conditioning of EDM training.

    ln(sigma) ~ N(P_mean, P_std^2); `label_dropout` is the share of labels replaced by "no class", for guidance.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    P_mean: float = -1.2
    P_std: float = Field(default=1.2, gt=0)
    label_dropout: float = Field(default=0.1, ge=0, le=1)


@dataclass(frozen=True)
class LabelDropout:
    """Makes the conditions of real images from their labels, on the CPU, before anything is uploaded.

    Attributes:
        share: of the labels, replaced by -1, "no condition".
        conditioner: labels (captions are labels too) -> conditions; None leaves the labels as they are.
    """

    share: float
    conditioner: Conditioner | None = None

    def __call__(self, labels: Cond, rng: Random) -> Cond:
        if not isinstance(labels, Tensor):
            return None
        left = labels.masked_fill(rng.uniform(len(labels)) < self.share, -1)
        return left if self.conditioner is None else self.conditioner.from_labels(left)


class Teach(Method):
    """Minimizes E[ lambda(sigma) |D(x + sigma eps; sigma) - x|^2 ] (EDM, Eq. 2 with the weights of Table 1).

    Args:
        denoiser: the network to train, possibly wrapped for several ranks.
        design: the same network unwrapped, whose training weight is used.
        config: noise distribution; the conditions come with the images, see `LabelDropout`.
    """

    ema_network = "denoiser"

    def __init__(self, denoiser: nn.Module, design: EDMDenoiser | DiffusersDenoiser, config: TeachConfig):
        self.denoiser, self.config = denoiser, config
        self.weighting = design.weighting
        self.networks = {"denoiser": denoiser}

    def phases(self, step: int) -> tuple[Phase, ...]:
        return (Phase(name="denoiser", trains=("denoiser",), inputs={"images"}, loss=self.loss),)

    def loss(self, batch: Batch, rng: Random) -> LossOutput:
        """The denoising loss at lognormal noise levels, [b]."""
        x, cond = batch.images()
        sigma = (self.config.P_mean + self.config.P_std * rng.normal(len(x)).to(x.device)).exp()
        x_t = x + bcast(sigma, x) * rng.normal(*x.shape).to(x.device)
        loss = denoising_loss(self.denoiser(x_t, sigma, cond), x, self.weighting(sigma))
        return LossOutput(terms={"denoise": loss}, weights={"denoise": 1.0})
