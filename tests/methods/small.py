"""A small teacher, what a method is made of, and a batch that has everything."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unistep.diffusion.process import ContinuousVPProcess, DiscreteVPProcess, EDMProcess, FlowProcess
from unistep.diffusion.process.base import NoiseProcess
from unistep.diffusion.weighting import training_weighting
from unistep.losses.regression import l2
from unistep.methods import DMD, Batch, DMDConfig
from unistep.methods.base import Method, Phase
from unistep.methods.inputs import MethodInputs
from unistep.networks import MLP, EDMDenoiser, Generator
from unistep.teachers.codecs import PointCodec
from unistep.teachers.conditioners import LabelConditioner
from unistep.teachers.teacher import Teacher

PROCESSES = [EDMProcess(0.02, 10.0), ContinuousVPProcess(), DiscreteVPProcess.linear(), FlowProcess(shift=2.0)]
ROWS = 6


def names(process: NoiseProcess) -> str:
    return type(process).__name__


def small_teacher(process: NoiseProcess = PROCESSES[0], classes: int = 0) -> Teacher:
    torch.manual_seed(0)
    return Teacher(
        denoiser=EDMDenoiser(MLP(2, 16, 2, classes), process, label_dim=classes), process=process, shape=(2,),
        weighting=training_weighting("F", process), codec=PointCodec(), source="test", sha256="0",
        conditioner=LabelConditioner(classes) if classes else None,
    )  # fmt: skip


def made_of(process: NoiseProcess = PROCESSES[0], classes: int = 0, **changes: object) -> MethodInputs:
    teacher = small_teacher(process, classes)
    settings = {"steps": 40, "regression": l2, **changes}
    return MethodInputs(teacher=teacher, copy=teacher.trainable_copy, prepare=lambda network: network, **settings)  # type: ignore[arg-type]


def dmd_with(
    teacher: Teacher, generator: nn.Module, fake_score: nn.Module, config: DMDConfig,
    regression: Callable[[Tensor, Tensor], Tensor] | None = None, guidance: float = 1.0,
) -> DMD:  # fmt: skip
    """DMD with the given networks instead of copies of the teacher."""

    def prepare(network: nn.Module) -> nn.Module:
        return generator if isinstance(network, Generator) else fake_score

    inputs = MethodInputs(
        teacher=teacher, copy=lambda: fake_score, prepare=prepare, steps=40, regression=regression, guidance=guidance
    )
    return DMD(inputs, config)


def full_batch(classes: int = 0) -> Batch:
    draws = torch.Generator().manual_seed(1)
    cond = torch.arange(ROWS) % classes if classes else None
    z, x, real = (torch.randn(ROWS, 2, generator=draws) for _ in range(3))
    return Batch(size=ROWS, cond=cond, real=real, real_cond=cond, pair_z=z, pair_x=x, pair_cond=cond)


def only(method: Method, phase: Phase) -> None:
    """Only the phase's networks learn, as the loop does it; what was frozen from the start stays so."""
    for name, network in method.networks.items():
        learns = getattr(network, "learns", None) or {n for n, p in network.named_parameters() if p.requires_grad}
        network.learns = learns  # type: ignore[assignment]
        for n, p in network.named_parameters():
            p.requires_grad_(name in phase.trains and n in learns)
        network.zero_grad()


def moved(network: nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.any()) for p in network.parameters())
