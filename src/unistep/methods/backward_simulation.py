"""Backward simulation: a multi-step generator is trained on its own intermediate samples (arXiv:2405.14867, 4.5)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unistep.diffusion.process.base import NoiseProcess
from unistep.diffusion.process.noising import noised
from unistep.methods.base import Random
from unistep.networks.generator import StepSchedule
from unistep.types import Cond

Start = Callable[[Tensor], tuple[Tensor, Tensor]]


def backward_simulation(
    generator: nn.Module,
    start: Start,
    process: NoiseProcess,
    steps: StepSchedule,
    z: Tensor,
    cond: Cond,
    rng: Random,
    k: int,
) -> Tensor:
    """Samples of denoising step k of the generator, with gradients of that step.

    The steps before it run without gradients, from pure noise with fresh noise between them, as in sampling.

    Args:
        generator: (z, cond) at the first time, (x_t, cond, t) at later ones.
        start: z -> x_t and t of the first evaluation.
        process: its noise process.
        steps: its times.
        z: unit noise [b, *dims].
        cond: condition of each row.
        rng: randomness of the phase.
        k: the denoising step, 0 = the first.

    Returns:
        The generator's x_0 at that step, [b, *dims].
    """
    x, t = start(z)
    with torch.no_grad():
        for level in steps.later_times[:k]:
            s = torch.full_like(t, level)
            x, t = noised(process, generator(x, cond, t), s, rng.normal(*z.shape).to(z.device)), s
    return generator(x, cond, t)


def denoising_step(steps: StepSchedule, step: int, iterations: int) -> int:
    """The denoising step trained at a training step: each for `iterations` steps in a row, in turn."""
    return step // iterations % steps.count
