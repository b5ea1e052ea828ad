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
    generator: nn.Module,
    start: Start,
    process: NoiseProcess,
    steps: Steps,
    z: Tensor,
    cond: Cond,
    rng: Random,
    depth: int,
) -> Tensor:
    """Samples with gradients of one of the generator's steps.

    The steps before it are run without gradients, from pure noise, with fresh noise between them, just as in sampling.

    Args:
        generator: (z, cond) at the first level, (x_t, cond, t) at others.
        start: z -> x_t and t of the first level.
        process: its noise process.
        steps: its levels.
        z: unit noise [b, *dims].
        cond: condition of each row.
        rng: randomness of the phase.
        depth: which step, 0 = the first.

    Returns:
        x_0 as the generator sees it at that step, [b, *dims].
    """
    x, t = start(z)
    with torch.no_grad():
        for level in steps.later[:depth]:
            s = torch.full_like(t, level)
            x, t = noised(process, generator(x, cond, t), s, rng.normal(*z.shape).to(z.device)), s
    return generator(x, cond, t)


def depth_of(steps: Steps, step: int, held_for: int) -> int:
    """Which of the generator's steps learns at a training step: each for `held_for` in a row, and round again."""
    return step // held_for % steps.count
