"""Sampling times for any process, evenly spaced in the logarithm of sigma/alpha."""

import torch
from torch import Tensor

from unistep.diffusion.process.base import NoiseProcess

FINEST, COARSEST = 0.02, 100.0  # of sigma/alpha: detail below and structure above are too few to matter


class EvenGrid:
    """A process with another sampling grid, the rest its own.

    Grids made for few steps (even in t, say) can leap from strong noise to data in their last step, and what that
    leaves out of the samples would look like a mistake of the network.
    """

    def __init__(self, process: NoiseProcess):
        self.process = process
        self.alpha, self.sigma, self.terminal = process.alpha, process.sigma, process.terminal

    def sampling_times(self, num_steps: int) -> Tensor:
        """At most num_steps + 1 float64 times, strictly decreasing from the terminal one to data.

        They are fewer where a table is so steep that neighboring levels share a timestep.
        """
        first, last = self.process.sampling_times(1).double()
        t = self.process.time(torch.linspace(0, 1, 4097, dtype=torch.float64)).double()
        ratio = (self.process.sigma(t) / self.process.alpha(t).clamp_min(1e-12)).clamp(FINEST, COARSEST).log()
        wanted = torch.linspace(float(ratio[-1]), float(ratio[0]), num_steps, dtype=torch.float64)[1:]
        index = torch.searchsorted(ratio, wanted).clamp(max=len(t) - 1)
        return torch.cat(
            [first[None], t[index], last[None]]
        ).unique_consecutive()  # a step of no length divides by zero
