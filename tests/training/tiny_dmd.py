"""DMD and its relatives with small U-Nets through the loop, for the tests on two ranks."""

from pathlib import Path
from typing import Any
from unittest import mock

import torch
from pydantic import TypeAdapter

from unistep.diffusion.process import EDMProcess
from unistep.diffusion.weighting import training_weighting
from unistep.losses.regression import l2
from unistep.methods.base import Method
from unistep.methods.inputs import MethodInputs
from unistep.methods.registry import AnyMethod
from unistep.networks import build_denoiser
from unistep.pairs import Pairs
from unistep.teachers.codecs import PixelCodec
from unistep.teachers.conditioners import LabelConditioner
from unistep.teachers.teacher import Teacher
from unistep.training import Streams, TensorImages, TrainingConfig, TrainResult, prepare_network, step, train
from unistep.training.distributed import full_tensor, sum_over_ranks
from unistep.training.health import HealthMonitor
from unistep.training.optim import NetworkOptimizer
from unistep.training.state import TrainState

NETWORK = {
    "type": "unet", "img_resolution": 8, "img_channels": 1, "model_channels": 8, "channel_mult": [1, 2],
    "num_blocks": 1, "attn_resolutions": [4], "label_dim": 3,
}  # fmt: skip


class NoisePairs:
    """Pairs that are noise on both sides."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: torch.Tensor) -> Pairs:
        z = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(1))[index]
        return Pairs(z=z, x=z.flip(-1), cond=index % 3, seeds=index)


METHODS: dict[str, dict[str, Any]] = {
    "dmd": {"name": "dmd", "regression": "l2", "fake_score_updates_per_step": 2},
    "dmd2": {"name": "dmd2", "fake_score_updates_per_step": 2, "num_steps": 2, "lambda_gan": 0.1},
    "f_distill": {"name": "f_distill", "divergence": "kl", "lambda_gan": 0.1, "fake_score_updates_per_step": 2},
    "gan": {"name": "gan"},
    "consistency": {"name": "consistency_training", "last_levels": 9},
}
ON_TWO_RANKS = [*(("ddp", name) for name in METHODS), ("fsdp", "dmd"), ("fsdp", "dmd2")]  # sharding sees no method


def tiny_teacher() -> Teacher:
    """A U-Net whose blocks all matter."""
    process = EDMProcess()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = {"network": NETWORK, "process": process.config()}
        denoiser = build_denoiser(config)
        with torch.no_grad():
            for p in denoiser.parameters():
                p.add_(0.02 * torch.randn_like(p))
    return Teacher(
        denoiser=denoiser, process=process, weighting=training_weighting("F", process), shape=(1, 8, 8),
        codec=PixelCodec(), source="test", sha256="0", conditioner=LabelConditioner(3), config=config,
    )  # fmt: skip


def tiny_method(name: str, strategy: str) -> tuple[Method, Streams, TrainingConfig]:
    """Method, batches and settings of three steps, two micro-batches each.

    With guidance: unguided, the scores are equal at the start, and Adam makes steps of their difference's rounding.
    """
    settings = TrainingConfig.model_validate(
        {"steps": 3, "batch": 8, "accumulate": 2, "device": "cpu", "precision": "fp32", "strategy": strategy,
         "checkpoint": {"every_minutes": None}}
    )  # fmt: skip
    teacher, cpu = tiny_teacher(), torch.device("cpu")
    made_of = MethodInputs(teacher=teacher, copy=teacher.trainable_copy, steps=3, regression=l2, guidance=1.5,
                          sum_over_ranks=sum_over_ranks,
                          prepare=lambda network: prepare_network(network, settings, cpu))  # fmt: skip
    method = TypeAdapter(AnyMethod).validate_python(METHODS[name]).build(made_of)
    images = TensorImages(torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(2)), torch.arange(20) % 3)
    source = Streams(seed=0, batch=8, pair_batch=4, conditioner=teacher.conditioner, pairs=NoisePairs(),
                     images=images)  # fmt: skip
    return method, source, settings


def run_method(folder: Path, name: str, strategy: str = "ddp") -> TrainResult:
    """The three steps through the loop."""
    return train(*tiny_method(name, strategy), folder)


def first_gradients(strategy: str = "ddp") -> dict[str, torch.Tensor]:
    """`network:parameter` -> the whole gradient of DMD's first update, at weights all ranks start with."""
    method, source, settings = tiny_method("dmd", strategy)
    found: dict[str, torch.Tensor] = {}

    def note(network: NetworkOptimizer, norm: torch.Tensor) -> None:
        for key, p in network.parameters.items():
            found.setdefault(f"{network.name}:{key}", whole(p.grad))  # of its first update

    with mock.patch.object(NetworkOptimizer, "clip", note):
        step.train_step(TrainState.start(method, settings, HealthMonitor()), source, settings, torch.device("cpu"))
    return found


def whole(gradient: torch.Tensor | None) -> torch.Tensor:
    assert gradient is not None
    return full_tensor(gradient).clone()
