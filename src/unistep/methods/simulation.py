"""Backward simulation: a generator of several steps learns on what it makes itself (DMD2, arXiv:2405.14867, 4.5)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unistep.methods.base import Random
from unistep.networks.generator import Steps
from unistep.process.base import NoiseProcess
from unistep.process.noising import noised
from unistep.types import Cond

Start = Callable[[Tensor], tuple[Tensor, Tensor]]


def simulated(
    generator: nn.Module, start: Start, process: NoiseProcess, steps: Steps, z: Tensor, cond: Cond, rng: Random
) -> Tensor:
    """Samples with gradients of one step, each row's step drawn uniformly among the generator's.

    The steps before it are run without gradients, from pure noise, with fresh noise between them, just as in sampling.
    (The paper draws one step for all rows, which costs less; the expectation is the same.)

    Args:
        generator: (z, cond) at the first level, (x_t, cond, t) at others.
        start: z -> x_t and t of the first level.
        process: its noise process.
        steps: its levels.
        z: unit noise [b, *dims].
        cond: condition of each row.
        rng: randomness of the phase.

    Returns:
        x_0 as the generator sees it at the drawn step, [b, *dims].
    """
    if not steps.later:
        return generator(z, cond)
    chosen = rng.integers(len(z), 0, len(steps.later)).to(z.device)
    return stopped(generator, start, process, steps, z, cond, rng, chosen)


@torch.no_grad()
def finished(
    generator: nn.Module, start: Start, process: NoiseProcess, steps: Steps, z: Tensor, cond: Cond, rng: Random
) -> Tensor:
    """Samples of all steps, [b, *dims], as whoever asks the generator sees them; arguments as of `simulated`."""
    last = torch.full((len(z),), len(steps.later), device=z.device)
    return stopped(generator, start, process, steps, z, cond, rng, last)


def stopped(
    generator: nn.Module,
    start: Start,
    process: NoiseProcess,
    steps: Steps,
    z: Tensor,
    cond: Cond,
    rng: Random,
    chosen: Tensor,
) -> Tensor:
    """x_0 of each row's step, int64 [b]; gradients of that step alone."""
    x, t = start(z)
    for step, level in enumerate(steps.later, start=1):
        with torch.no_grad():
            s = torch.full_like(t, level)
            below = noised(process, generator(x, cond, t), s, rng.normal(*z.shape).to(z.device))
        on = chosen >= step
        x, t = torch.where(on.reshape(-1, *[1] * (z.ndim - 1)), below, x), torch.where(on, s, t)
    return generator(x, cond, t)
