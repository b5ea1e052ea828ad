"""What a distillation is made of, whatever the method: a teacher and copies of a network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unistep.errors import UserError
from unistep.guidance import GuidedDenoiser
from unistep.networks.discriminator import Judged
from unistep.networks.generator import ONE_STEP, Generator, Steps
from unistep.teachers.teacher import Teacher


@dataclass(frozen=True, kw_only=True)
class Ingredients:
    """What a distillation is made of, whatever the method.

    Attributes:
        teacher: mu_base, frozen.
        copy: a fresh trainable copy of the network that a distillation starts from.
        prepare: makes a network ready for training: device, memory format, ranks.
        steps: length for which a method lays out a schedule of its own; usually that of the training.
        guidance: scale of the teacher's guidance, 1 = off; the pairs must have been made with the same.
        init: state of the denoiser that the generator starts from; None = the network's own.
        t_init: noise level that a one-step generator is held at; None = the terminal time.
        regression: the distance that the method's settings name, (x, y) -> [b]; None where they name none.
        sum_over_ranks: a tensor to its sum over all ranks.
        seed: of weights that do not come from the network, such as a discriminator's head.
    """

    teacher: Teacher
    copy: Callable[[], nn.Module]
    prepare: Callable[[nn.Module], nn.Module]
    steps: int
    guidance: float = 1.0
    init: Mapping[str, Tensor] | None = None
    t_init: float | None = None
    regression: Callable[[Tensor, Tensor], Tensor] | None = None
    sum_over_ranks: Callable[[Tensor], Tensor] = lambda tensor: tensor
    seed: int = 0

    @property
    def mu_base(self) -> Callable[..., Tensor]:
        """The teacher, guided where the recipe says so; without gradients at scale 1.

        Raises:
            UserError: for guidance of a teacher without conditions.
        """
        return guided(self.teacher, self.guidance)

    def generator(self, steps: Steps = ONE_STEP) -> nn.Module:
        """G, started from the network or from `init`, ready for training.

        Raises:
            UserError: for a start below the level of the second step.
        """
        if self.t_init is not None and steps.later and self.t_init <= steps.later[0]:
            raise UserError(
                f"generator: found a start at t = {self.t_init:g}, expected one above {steps.later[0]:g}, the level of "
                "the second step; start higher, or set method.places"
            )
        denoiser = self.copy()
        if self.init is not None:
            denoiser.load_state_dict(self.init)
        return self.prepare(Generator(denoiser, self.teacher.process, self.t_init, steps))

    def denoiser(self) -> nn.Module:
        """mu(x_t, t, cond), started from the network, ready for training."""
        return self.prepare(self.copy())

    def judged(self, decodes: bool = True) -> nn.Module:
        """The same with a discriminator's head, see `networks.discriminator.Judged`.

        Raises:
            UserError: for a network that names no bottleneck, or one with adapters.
        """
        process, conditioner = self.teacher.process, self.teacher.conditioner
        x_t, t = torch.zeros(1, *self.teacher.shape), process.time(torch.tensor([0.5]))
        cond = None if conditioner is None else conditioner.from_seeds(torch.zeros(1, dtype=torch.int64))
        with torch.random.fork_rng(devices=[]):  # heads are made on the CPU; no other generator is touched
            torch.default_generator.manual_seed(self.seed)
            judged = Judged(self.copy(), x_t, t, cond, decodes)
        prepared = self.prepare(judged)
        judged.hook_first()
        return prepared


def guided(teacher: Teacher, scale: float) -> Callable[..., Tensor]:
    """mu_base as a method asks it: the teacher, or the teacher guided by `scale`.

    Raises:
        UserError: for guidance of a teacher without conditions.
    """
    if scale == 1:
        return teacher
    if teacher.conditioner is None:
        raise UserError(f"guidance: found {scale:g}, expected 1: the teacher takes no conditions")
    return GuidedDenoiser(teacher.denoiser, teacher.conditioner.null, scale)
