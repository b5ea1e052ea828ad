"""A one-step generator with its time held fixed: what depends on the time alone has become numbers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unistep.diffusion.prediction import row
from unistep.errors import UserError
from unistep.export.student import Student
from unistep.networks.preconditioning import EDMDenoiser
from unistep.teachers.diffusers.denoiser import DiffusersDenoiser
from unistep.teachers.module import ModuleDenoiser
from unistep.types import Cond


class FixedTimeGenerator(nn.Module):
    """(z, conditions in the order of `names`) -> x_0 = on_x x + on_raw F(x), with x = scale z at the held time.

    Args:
        student: of one step.
        names: of its conditions; `label` for class indices.

    Raises:
        UserError: for several steps.
    """

    def __init__(self, student: Student, names: Sequence[str]):
        super().__init__()
        if student.generator.steps.later_times:
            count = student.generator.steps.count
            raise UserError(f"steps: found {count}, expected 1: a graph holds one evaluation; export to safetensors")
        denoiser, self.names = student.generator.denoiser, tuple(names)
        self.denoiser, (self.scale, self.t) = denoiser, student.start
        t = torch.tensor([self.t])
        if isinstance(denoiser, DiffusersDenoiser):
            schedule = denoiser.schedule
            scale, on_x0, on_xt = row(schedule.prediction, schedule.process, t, schedule.sigma_data)
            sign = schedule.sign * denoiser.family.sign
            numbers = (-on_xt / on_x0, sign * scale / on_x0, torch.ones(1), t)
        elif isinstance(denoiser, ModuleDenoiser):
            scale, on_x0, on_xt = row(denoiser.prediction, denoiser.process, t, denoiser.sigma_data)
            numbers = (-on_xt / on_x0, scale / on_x0, torch.ones(1), t)
        else:
            assert isinstance(denoiser, EDMDenoiser)
            numbers = denoiser.coefficients(t)
        self.on_x, self.on_raw, self.c_in, self.clock = map(float, numbers)

    def forward(self, z: Tensor, *conditions: Tensor) -> Tensor:
        given = dict(zip(self.names, conditions, strict=True))
        x, clock = self.scale * z, torch.full((z.shape[0],), self.clock, device=z.device)
        return self.on_x * x + self.on_raw * self.raw(self.c_in * x, clock, given.get("label", given or None))

    def raw(self, x: Tensor, clock: Tensor, cond: Cond) -> Tensor:
        """F(x), [b, *dims]."""
        if isinstance(self.denoiser, DiffusersDenoiser):
            return self.denoiser.raw(x, clock, cond)
        if isinstance(self.denoiser, ModuleDenoiser):
            return (
                self.denoiser.network(x, clock, cond) if self.denoiser.conditional else self.denoiser.network(x, clock)
            )
        assert isinstance(self.denoiser, EDMDenoiser)
        return self.denoiser.raw(x, clock, self.denoiser.one_hot(cond))
