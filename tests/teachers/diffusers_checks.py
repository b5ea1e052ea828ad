"""What holds for every family of diffusers, asked in the same way."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unistep.guidance import GuidedDenoiser
from unistep.losses.regression import l2
from unistep.methods import DMD, DMDConfig
from unistep.networks import Generator
from unistep.pairs import generate_pairs
from unistep.samplers import build_sampler
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
    generator = prepare_network(Generator(teacher.trainable_copy(), teacher.process), settings, CPU)
    fake_score = prepare_network(teacher.trainable_copy(), settings, CPU)
    method = DMD(teacher, generator, fake_score, DMDConfig(regression="l2"), l2, guidance)
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
