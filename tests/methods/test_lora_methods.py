"""Methods without a discriminator work on adapters as on whole networks; the weights that all share never learn."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from fixed_random import FixedRandom
from small import PROCESSES, full_batch, made_of, moved, only
from test_every_method import SETTINGS, every_phase, settings
from torch import Tensor, nn

from unistep.errors import UserError
from unistep.methods.inputs import MethodInputs
from unistep.networks.lora import Adapted, LoRAConfig, sharing_copy
from unistep.teachers.module import teacher_from_module
from unistep.teachers.teacher import Teacher

JUDGED = ("dmd2", "dmd2 of 3 steps", "f_distill", "sida", "gan")
WITHOUT_DISCRIMINATOR = {name: values for name, values in SETTINGS.items() if name not in JUDGED}


class Own(nn.Module):
    """A reader's network of points."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.leave(self.enter(torch.cat([x_t, t[:, None]], dim=1)).tanh())


@pytest.fixture
def teacher() -> Teacher:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return teacher_from_module(Own(), PROCESSES[0], "x0", (2,))


def on_adapters(teacher: Teacher) -> MethodInputs:
    lora = LoRAConfig(rank=2, target_modules=("enter", "leave"))
    return replace(made_of(), teacher=teacher, copy=lambda: Adapted(sharing_copy(teacher.denoiser), lora, seed=0))


@pytest.mark.parametrize("values", WITHOUT_DISCRIMINATOR.values(), ids=WITHOUT_DISCRIMINATOR)
def test_each_phase_moves_its_own_adapter(values: dict[str, Any], teacher: Teacher) -> None:
    method = settings(values).build(on_adapters(teacher))
    for seed, network in enumerate(method.networks.values()):
        for p in network.parameters():
            p.data.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(seed)))
    for phase in every_phase(method):
        only(method, phase)
        phase.loss(full_batch(), FixedRandom()).total().backward()
        assert {name for name, network in method.networks.items() if moved(network)} == set(phase.trains)
    assert not any(p.requires_grad or p.grad is not None for p in teacher.denoiser.parameters())


@pytest.mark.parametrize("name", JUDGED)
def test_a_discriminator_on_adapters_is_refused_by_name(name: str, teacher: Teacher) -> None:
    with pytest.raises(UserError, match="^lora: found adapters with a method that has a discriminator, expected none"):
        settings(SETTINGS[name]).build(on_adapters(teacher))
