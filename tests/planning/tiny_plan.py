"""A distillation of points with small MLPs, as a plan would rehearse it."""

from typing import Any

import torch

from unistep.costing.synthetic_batches import PairRows
from unistep.diffusion.process import EDMProcess
from unistep.diffusion.weighting import training_weighting
from unistep.losses.regression import l2
from unistep.methods import DMD, DMDConfig
from unistep.methods.inputs import MethodInputs
from unistep.networks import build_denoiser
from unistep.teachers.codecs import PointCodec
from unistep.teachers.conditioners import LabelConditioner
from unistep.teachers.teacher import Teacher
from unistep.training import Streams, TrainingConfig

CPU = torch.device("cpu")
NETWORK = {"type": "mlp", "dim": 2, "width": 16, "num_blocks": 1, "label_dim": 3}


def settings(**changes: Any) -> TrainingConfig:
    return TrainingConfig.model_validate(
        {"steps": 12, "batch": 16, "device": "cpu", "checkpoint": {"every_minutes": None}, **changes}
    )


def tiny_teacher() -> Teacher:
    process = EDMProcess()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = build_denoiser({"network": NETWORK, "process": process.config()})
    return Teacher(
        denoiser=denoiser, process=process, weighting=training_weighting("F", process), shape=(2,), codec=PointCodec(),
        source="tiny", sha256="0", conditioner=LabelConditioner(3),
    )  # fmt: skip


def tiny_dmd(teacher: Teacher, guidance: float = 1.0, **changes: Any) -> DMD:
    inputs = MethodInputs(
        teacher=teacher, copy=teacher.trainable_copy, prepare=lambda network: network, steps=100, regression=l2,
        guidance=guidance,
    )  # fmt: skip
    return DMD(inputs, DMDConfig.model_validate({"regression": "l2", **changes}))


def tiny_streams(config: TrainingConfig, teacher: Teacher) -> Streams:
    z = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    return Streams(
        seed=0, batch=config.batch, pair_batch=config.pair_batch, conditioner=teacher.conditioner,
        pairs=PairRows(z, z, torch.arange(100) % 3),
    )  # fmt: skip
