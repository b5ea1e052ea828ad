"""What holds for every family of diffusers, asked in the same way."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unistep.diffusion.guidance import GuidedDenoiser
from unistep.diffusion.samplers import build_sampler
from unistep.losses.regression import l2
from unistep.methods import DMD, DMDConfig
from unistep.methods.inputs import MethodInputs
from unistep.networks import Generator
from unistep.networks.lora import Adapted, LoRAConfig, sharing_copy
from unistep.pairs import generate_pairs
from unistep.teachers.checkpoint import load_generator, save_denoiser
from unistep.teachers.diffusers import compare
from unistep.teachers.diffusers.denoiser import DiffusersDenoiser
from unistep.teachers.teacher import Teacher
from unistep.training import Streams, TrainingConfig, prepare_network, train
from unistep.types import Cond

CPU = torch.device("cpu")


def condition(teacher: Teacher, rows: int) -> Cond:
    return None if teacher.conditioner is None else teacher.conditioner.from_seeds(torch.arange(rows))


def guided_sample(teacher: Teacher, z: Tensor, steps: int, scale: float, cond: Cond) -> Tensor:
    assert teacher.conditioner is not None
    guided = GuidedDenoiser(teacher.denoiser, teacher.conditioner.null, scale)
    return build_sampler("euler", steps)(guided, teacher.process, z, cond).x


def difference(
    pipeline: Any, teacher: Teacher, scale: float = 1.0, rows: int = 2, steps: int = 2, **given: Any
) -> float:
    """Of our sample from the pipeline's own, relative; `given` are the arguments of its call."""
    denoiser = teacher.denoiser
    assert isinstance(denoiser, DiffusersDenoiser)
    z = torch.randn(rows, *teacher.shape, generator=compare.seeded())
    own = compare.own_sample(pipeline, denoiser, z, steps, given)[:rows]
    ours = guided_sample(teacher, z, steps, scale, condition(teacher, rows))
    return compare.relative(ours, own)


def require_round_trip(teacher: Teacher, folder: Path) -> None:
    """A generator of the teacher's network, saved and loaded without the teacher, gives the same samples."""
    generator = Generator(teacher.trainable_copy(), teacher.process)
    save_denoiser(folder / "generator", generator.denoiser, teacher.config | {"t_init": None})
    again, config, _ = load_generator(folder)
    z, cond = torch.randn(2, *teacher.shape), condition(teacher, 2)
    with torch.no_grad():
        assert torch.equal(generator(z, cond), again(z, cond))
    assert tuple(config["shape"]) == teacher.shape


def require_two_steps(teacher: Teacher, folder: Path, guidance: float = 1.0) -> None:
    """Two steps of DMD with regression on two pairs: both networks move and stay finite."""
    settings = TrainingConfig.model_validate(
        {"steps": 2, "batch": 2, "pair_batch": 2, "device": "cpu", "precision": "fp32",
         "checkpoint": {"every_minutes": None}}
    )  # fmt: skip
    pairs = generate_pairs(
        teacher, build_sampler("euler", 1), folder / "pairs", count=2, tile=2, guidance=guidance, progress=False
    )
    inputs = MethodInputs(
        teacher=teacher, copy=teacher.trainable_copy, prepare=lambda n: prepare_network(n, settings, CPU), steps=2,
        regression=l2, guidance=guidance,
    )  # fmt: skip
    method = DMD(inputs, DMDConfig(regression="l2"))
    generator, fake_score = method.generator, method.fake_score
    streams = Streams(seed=0, batch=2, pair_batch=2, conditioner=teacher.conditioner, pairs=pairs)
    assert train(method, streams, settings, folder / "run").step == 2
    before = dict(teacher.denoiser.named_parameters())
    for network in (dict(generator.named_parameters()), dict(fake_score.named_parameters())):
        moved = [not torch.equal(p, before[n.removeprefix("denoiser.")]) for n, p in network.items()]
        assert sum(moved) > len(moved) / 2 and all(bool(p.isfinite().all()) for p in network.values())


def require_gradients(teacher: Teacher) -> None:
    """Every parameter that is to learn has a gradient: several ranks wait for each of them."""
    network, t = teacher.trainable_copy(), teacher.process.time(torch.tensor([0.3, 0.8]))
    network(torch.randn(2, *teacher.shape), t, condition(teacher, 2)).square().mean().backward()
    assert [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None] == []


def require_adapters(teacher: Teacher) -> None:
    """Adapters on the family's own choice of layers start as the teacher, and each of them has a gradient.

    The gradient is the same where activations are computed again after the teacher has run once more.
    """
    assert isinstance(teacher.denoiser, DiffusersDenoiser)
    lora = LoRAConfig(rank=2, target_modules=teacher.denoiser.family.lora)
    x_t, t, cond = torch.randn(2, *teacher.shape), teacher.process.time(torch.tensor([0.3, 0.8])), condition(teacher, 2)
    found: list[list[Tensor | None]] = []
    for again in (False, True):
        network = Adapted(sharing_copy(teacher.denoiser), lora, seed=0)
        settings = TrainingConfig.model_validate({"steps": 1, "batch": 1, "gradient_checkpointing": again})
        answer = prepare_network(network, settings, torch.device("cpu"))(x_t, t, cond)
        assert torch.equal(answer, teacher(x_t, t, cond))
        answer.square().mean().backward()
        found.append([p.grad for p in network.parameters()])
        assert [name for name, p in network.named_parameters() if p.grad is None] == []
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    assert not any(p.requires_grad for p in teacher.denoiser.parameters())
