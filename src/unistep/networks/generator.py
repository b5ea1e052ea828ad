"""The one-step generator: a denoiser held at one noise level, seen as a map G(z, cond) -> x."""

import torch
from torch import Tensor, nn

from unistep.process.base import NoiseProcess
from unistep.types import Cond, bcast


class Generator(nn.Module):
    """G(z) = mu(x_T, T) with x_T the terminal noise made from z; z ~ N(0, I) is never pre-scaled by the caller.

    At initialisation this is the teacher asked to denoise pure noise (DMD, section 3.1). `t_init` starts it at a
    lower level instead, x = sigma(t_init) z at time t_init, where the teacher's answer is already an image
    (SiD, arXiv:2404.04057, uses sigma 2.5).

    Args:
        denoiser: (x_t, t, cond) -> x_0; its parameters are the generator's.
        process: the denoiser's noise process.
        t_init: time the denoiser is held at, in the process's own unit; None = the terminal time.
    """

    def __init__(self, denoiser: nn.Module, process: NoiseProcess, t_init: float | None = None):
        super().__init__()
        self.denoiser, self.process, self.t_init = denoiser, process, t_init

    def forward(self, z: Tensor, cond: Cond = None) -> Tensor:
        if self.t_init is None:
            t = self.process.time(torch.ones(len(z), device=z.device))
            return self.denoiser(self.process.terminal(z), t, cond)
        t = torch.full((len(z),), self.t_init, device=z.device)
        return self.denoiser(bcast(self.process.sigma(t), z) * z, t, cond)
