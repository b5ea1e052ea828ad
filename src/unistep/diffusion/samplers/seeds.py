"""Per-sample randomness: every number is a pure function of (seed, stream, position), whatever the batch.

The generator is numpy's counter-based Philox with the 128-bit key (stream, seed). Torch's CPU generator would not do:
it keeps only 32 bits of a seed, and its normals depend on the processor's vector width and on the tensor's size.

The numbers are drawn on the CPU by numpy's scalar code, so they are the same, bit for bit, for every device and with
whatever vector instructions a processor has. Between C libraries or processor architectures a value in the outermost
2.6e-4 of the distribution may differ in its last bit; about once in 10^9 numbers a rejection may be decided otherwise,
and the rest of that row is another one then. Stored pairs compare the noise of seed 0 when they are opened.
"""

import numpy as np
import torch
from torch import Tensor

from unistep.errors import UserError

LATENT = 0  # stream of z; samplers use one stream per step, 1, 2, ...
DATA = 1 << 32  # first stream of exact data samples, far away from any sampler's


def seeded_normal(seeds: Tensor, dims: tuple[int, ...], stream: int = LATENT) -> Tensor:
    """Unit Gaussian noise, one independent generator per sample.

    Args:
        seeds: int64 [b], each >= 0.
        dims: shape of one sample.
        stream: which of a seed's streams; 0 is z.

    Returns:
        float32 [b, *dims] on the CPU; row i depends on seeds[i], stream and dims only.

    Raises:
        UserError: for a negative seed.
    """
    rows = [generator.standard_normal(dims, dtype=np.float32) for generator in _generators(seeds, stream)]
    return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, *dims)


def seeded_uniform(seeds: Tensor, stream: int) -> Tensor:
    """One number in [0, 1) per sample, float64 [b], under the same promise as `seeded_normal`."""
    return torch.tensor([generator.random() for generator in _generators(seeds, stream)], dtype=torch.float64)


def _generators(seeds: Tensor, stream: int) -> list[np.random.Generator]:
    values = [int(seed) for seed in seeds]
    if values and min(values) < 0:
        raise UserError(f"seed: found {min(values)}, expected a whole number, 0 or larger")
    return [np.random.Generator(np.random.Philox(key=(stream << 64) | value)) for value in values]
