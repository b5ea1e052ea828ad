"""Solving the teacher's ODE for one tile of seeds, always with the same shapes so that the kernels do the same sums."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from unistep.diffusion.guidance import GuidedDenoiser
from unistep.diffusion.samplers import Sampler, SampleResult, seeded_normal
from unistep.errors import UserError
from unistep.pairs.facts import DTYPES
from unistep.teachers.teacher import Conditioner, Teacher
from unistep.types import to_device


class TileSolver:
    """Rows of consecutive seeds from a teacher.

    Args:
        teacher: the teacher; its denoiser is moved to `device`.
        sampler: the solver.
        guidance: guidance scale, 1 = off.
        dtype: storage type of x, a name in `DTYPES`.
        device: where to solve.

    Raises:
        UserError: for guidance of a teacher without conditions.
    """

    def __init__(self, teacher: Teacher, sampler: Sampler, guidance: float, dtype: str, device: torch.device):
        self.teacher, self.sampler, self.dtype, self.device = teacher, sampler, dtype, device
        self.denoiser: nn.Module = teacher.denoiser.to(device)
        if guidance != 1:
            if teacher.conditioner is None:
                raise UserError(f"guidance: found {guidance:g}, expected 1: the teacher takes no conditions")
            self.denoiser = GuidedDenoiser(self.denoiser, teacher.conditioner.null, guidance)

    def __call__(self, first_seed: int, rows: int) -> dict[str, Tensor]:
        """The tensors to store, on the CPU: seeds, x and labels. A prompt's label stands for its embeddings.

        Raises:
            UserError: if the teacher's answer is not finite in the storage type.
        """
        seeds = torch.arange(first_seed, first_seed + rows)
        x = self.solved(seeds).x.to(DTYPES[self.dtype]).cpu()
        finite = x.isfinite().reshape(rows, -1).all(dim=1)
        if not finite.all():
            raise UserError(
                f"pairs: seed {int(seeds[~finite][0])}: found an x that is not finite in {self.dtype}, expected finite "
                "values; check the teacher and the solver's steps, or store float32 where it is float16"
            )
        return {"seeds": seeds, "x": x, **stored_labels(self.teacher.conditioner, seeds)}

    def solved(self, seeds: Tensor) -> SampleResult:
        """The teacher's answers to seeds int64 [b], as they come: x float32 [b, *dims] on the device."""
        z = seeded_normal(seeds, self.teacher.shape).to(self.device)
        conditioner = self.teacher.conditioner
        cond = None if conditioner is None else to_device(conditioner.from_seeds(seeds), self.device)
        return self.sampler(self.denoiser, self.teacher.process, z, cond, seeds)


def stored_labels(conditioner: Conditioner | None, seeds: Tensor) -> dict[str, Tensor]:
    """What is stored of the conditions of seeds: `label`, the class or prompt of each; nothing without conditions."""
    return {} if conditioner is None else {"label": conditioner.labels(seeds)}


@contextmanager
def fixed_kernels(threads: int) -> Iterator[None]:
    """The thread count the store was begun with, and cuDNN's deterministic kernels; both as before afterwards."""
    before, cudnn = torch.get_num_threads(), torch.backends.cudnn
    torch.set_num_threads(threads)
    try:
        with cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=cudnn.allow_tf32):
            yield
    finally:
        torch.set_num_threads(before)
