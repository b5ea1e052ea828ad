"""The inputs of every distillation method: a frozen teacher and functions that build the trainable networks from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unistep.diffusion.guidance import GuidedDenoiser
from unistep.errors import UserError
from unistep.networks.discriminator import DenoiserWithDiscriminator
from unistep.networks.generator import ONE_STEP, Generator, StepSchedule
from unistep.teachers.teacher import Teacher


@dataclass(frozen=True, kw_only=True)
class MethodInputs:
    """The inputs of a method's constructor.

    Attributes:
        teacher: mu_base, frozen.
        copy: returns a new trainable copy of the network that the distillation starts from.
        prepare: moves a network to the device and wraps it for several ranks.
        steps: number of steps over which a method lays out its own schedule; usually that of the training.
        guidance: scale of the teacher's guidance, 1 = off; the pairs must have been made with the same.
        init: state of the denoiser that the generator starts from; None = the copied network's own.
        t_init: time at which a one-step generator is evaluated; None = the terminal time.
        regression: the distance that the method's settings name, (x, y) -> [b]; None if they name none.
        sum_over_ranks: returns the sum of a tensor over all ranks.
        seed: of weights that do not come from the teacher, such as a discriminator's head.
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
    def mu_base(self) -> GuidedDenoiser:
        """The guided teacher.

        Raises:
            UserError: for guidance of a teacher without conditions.
        """
        return self.teacher.guided(self.guidance)

    @property
    def distance(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The distance between images, (x, y) -> [b].

        Raises:
            ValueError: if there is none.
        """
        if self.regression is None:
            raise ValueError("regression: found no distance between images, expected one")
        return self.regression

    def build_generator(self, steps: StepSchedule = ONE_STEP) -> nn.Module:
        """G, initialized from the copied network or from `init`, ready for training.

        Raises:
            UserError: if the first time is not above the second.
        """
        if self.t_init is not None and steps.later_times and self.t_init <= steps.later_times[0]:
            raise UserError(
                f"generator: found a start at t = {self.t_init:g}, expected one above {steps.later_times[0]:g}, the "
                "level of the second step; start higher, or set method.places"
            )
        denoiser = self.copy()
        if self.init is not None:
            denoiser.load_state_dict(self.init)
        return self.prepare(Generator(denoiser, self.teacher.process, self.t_init, steps))

    def build_denoiser(self) -> nn.Module:
        """mu(x_t, t, cond), initialized from the copied network, ready for training."""
        return self.prepare(self.copy())

    def build_denoiser_with_discriminator(self, train_decoder: bool = True) -> nn.Module:
        """A denoiser with a discriminator's head on its bottleneck, ready for training.

        Raises:
            UserError: for a network that names no bottleneck, or one with adapters.
        """
        process, conditioner = self.teacher.process, self.teacher.conditioner
        x_t, t = torch.zeros(1, *self.teacher.shape), process.time(torch.tensor([0.5]))
        cond = None if conditioner is None else conditioner.from_seeds(torch.zeros(1, dtype=torch.int64))
        with torch.random.fork_rng(devices=[]):  # heads are made on the CPU; no other generator is touched
            torch.default_generator.manual_seed(self.seed)
            denoiser = DenoiserWithDiscriminator(self.copy(), x_t, t, cond, train_decoder)
        prepared = self.prepare(denoiser)
        denoiser.hook_first()
        return prepared
