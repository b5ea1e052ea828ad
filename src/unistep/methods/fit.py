"""Fitting a network to an analytic teacher: mu_base is taught to a network of the student's class."""

from torch import nn

from unistep.losses.denoising import denoising_loss
from unistep.methods.base import Batch, LossOutput, Method, Phase, Random
from unistep.methods.scores import sample_noised
from unistep.teachers.teacher import Teacher


class Fit(Method):
    """Minimizes weight(t) |mu(x_t, t) - mu_base(x_t, t)|^2 over the whole training grid.

    The target is the exact posterior mean instead of a sample: the same minimizer with less variance.

    Args:
        teacher: an exact teacher; its own samples are the batch's images.
        denoiser: the network to fit.
    """

    ema_network = "denoiser"

    def __init__(self, teacher: Teacher, denoiser: nn.Module):
        self.teacher, self.denoiser = teacher, denoiser
        self.networks = {"denoiser": denoiser}

    def phases(self, step: int) -> tuple[Phase, ...]:
        return (Phase(name="denoiser", trains=("denoiser",), inputs={"images"}, loss=self.loss),)

    def loss(self, batch: Batch, rng: Random) -> LossOutput:
        """The weighted distance of the two posterior means, [b]."""
        x, cond = batch.images()
        t, x_t = sample_noised(self.teacher.process, x, rng)
        mu_base = self.teacher(x_t, t, cond)
        loss = denoising_loss(self.denoiser(x_t, t, cond), mu_base, self.teacher.weighting(t))
        return LossOutput(terms={"denoise": loss}, weights={"denoise": 1.0})
