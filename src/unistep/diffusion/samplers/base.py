"""What all samplers share: float64 state, the count of network evaluations, and per-sample noise."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from unistep.diffusion.process.base import NoiseProcess
from unistep.diffusion.process.noising import require_steps
from unistep.diffusion.samplers.seeds import seeded_normal
from unistep.errors import UserError
from unistep.types import Cond

DenoiserFn = Callable[[Tensor, Tensor, Cond], Tensor]
"""(x_t [b, *dims], t [b], cond) -> mu [b, *dims]; every `nn.Module` denoiser is one."""


class SampleResult(NamedTuple):
    """Samples and what they cost.

    Attributes:
        x: samples [b, *dims], in z's dtype.
        nfe: network evaluations per sample, counted while sampling.
    """

    x: Tensor
    nfe: int


class Level(NamedTuple):
    """One time of the sampling grid with the process's scales there, as float64 scalars (exact, and off the device)."""

    t: float
    alpha: float
    sigma: float


class Trajectory:
    """One sampling run: asks the denoiser, counts the evaluations and draws fresh noise.

    Args:
        denoiser: (x_t, t, cond) -> x_0; its `evaluations_per_call` (guidance: 2) counts, 1 where it has none.
        process: the denoiser's noise process.
        z: the start noise, whose dtype the denoiser is asked in.
        cond: condition of each row.
        seeds: int64 [b]; needed only by samplers that add noise.
    """

    def __init__(self, denoiser: DenoiserFn, process: NoiseProcess, z: Tensor, cond: Cond, seeds: Tensor | None):
        self.denoiser, self.process, self.cond, self.seeds = denoiser, process, cond, seeds
        self.dtype, self.dims = z.dtype, tuple(z.shape[1:])
        self.nfe = 0

    def level(self, t: float | Tensor) -> Level:
        """The process at time t."""
        time = torch.as_tensor(t, dtype=torch.float64).reshape(1).cpu()
        return Level(float(time), float(self.process.alpha(time)), float(self.process.sigma(time)))

    def levels(self, num_steps: int) -> list[Level]:
        """The process's own sampling grid, num_steps + 1 levels, the last is data."""
        return [self.level(t) for t in self.process.sampling_times(num_steps)]

    def mu(self, x: Tensor, at: Level) -> Tensor:
        """E[x_0 | x_t] in float64: one call of the denoiser."""
        self.nfe += getattr(self.denoiser, "evaluations_per_call", 1)
        t_dtype = torch.promote_types(self.dtype, torch.float32)  # half precision cannot tell neighbouring times apart
        t = torch.full((len(x),), at.t, dtype=t_dtype, device=x.device)
        return self.denoiser(x.to(self.dtype), t, self.cond).double()

    def noise(self, x: Tensor, step: int) -> Tensor:
        """Fresh unit noise for a step (0, 1, ...), float64, a pure function of each sample's seed.

        Raises:
            UserError: if no seeds were given.
        """
        if self.seeds is None:
            raise UserError("seeds: found none, expected one per sample, because this sampler adds noise")
        return seeded_normal(self.seeds, self.dims, stream=step + 1).to(x.device).double()


@dataclass(frozen=True)
class Sampler(ABC):
    """Turns unit noise into samples by a fixed number of steps; the state is kept in float64.

    Attributes:
        num_steps: steps of the time grid.
    """

    name: ClassVar[str]

    num_steps: int

    def __post_init__(self) -> None:
        require_steps("sampler.num_steps", self.num_steps)

    @abstractmethod
    def solve(self, run: Trajectory, x: Tensor) -> Tensor:
        """From x_T to x_0, float64 [b, *dims]."""

    def nfe(self, evaluations_per_call: int = 1) -> int:
        """Network evaluations per sample."""
        return self.num_steps * evaluations_per_call

    def config(self) -> dict[str, Any]:
        """Plain values from which `build_sampler` rebuilds the sampler."""
        return {"name": self.name, **asdict(self)}

    @torch.no_grad()
    def __call__(
        self, denoiser: DenoiserFn, process: NoiseProcess, z: Tensor, cond: Cond = None, seeds: Tensor | None = None
    ) -> SampleResult:
        """Samples from unit noise.

        Args:
            denoiser: (x_t, t, cond) -> x_0.
            process: the denoiser's noise process.
            z: unit noise [b, *dims], never pre-scaled.
            cond: condition of each row.
            seeds: int64 [b], needed only where the sampler adds noise.

        Raises:
            UserError: if the sampler adds noise and no seeds were given, or does not suit the process.
        """
        run = Trajectory(denoiser, process, z, cond, seeds)
        x = self.solve(run, process.terminal(z.double()))
        return SampleResult(x.to(z.dtype), run.nfe)


def eps_from_x0(x: Tensor, x_0: Tensor, at: Level) -> Tensor:
    """The noise that goes with a clean sample, eps = (x_t - alpha_t x_0) / sigma_t; defined at every noisy time."""
    return (x - at.alpha * x_0) / at.sigma
