"""Fitting a network to a teacher without weights: the analytic mu_base taught to a network of the student's class."""

from torch import nn

from unistep.losses.denoising import denoising_loss
from unistep.methods.base import Batch, LossOutput, Method, Phase, Random
from unistep.methods.matching import noise_uniformly
from unistep.teachers.teacher import Teacher


class Fit(Method):
    """One network, one phase: weight(t) |mu(x_t, t) - mu_base(x_t, t)|^2 over the whole training grid.

    The target is the exact posterior mean instead of a sample, the same minimiser with less variance.

    Args:
        teacher: an exact teacher; its own samples come as `Batch.real`.
        denoiser: the network to fit.
    """

    averaged = "denoiser"

    def __init__(self, teacher: Teacher, denoiser: nn.Module):
        self.teacher, self.denoiser = teacher, denoiser
        self.networks = {"denoiser": denoiser}

    def phases(self, step: int) -> tuple[Phase, ...]:
        """Always the one."""
        return (Phase(name="denoiser", trains=("denoiser",)),)

    def loss(self, phase: Phase, batch: Batch, rng: Random) -> LossOutput:
        x, process = batch.real, self.teacher.process
        if x is None:
            raise ValueError("Fit: needs a stream of the teacher's samples")
        t, x_t = noise_uniformly(process, x, rng)
        mu_base = self.teacher(x_t, t, batch.real_cond)
        loss = denoising_loss(self.denoiser(x_t, t, batch.real_cond), mu_base, self.teacher.weighting(t))
        return LossOutput(terms={"denoise": loss}, weights={"denoise": 1.0})
