"""DMD and its relatives with small U-Nets through the loop, for the tests on two ranks."""

from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from unistep.losses.regression import l2
from unistep.methods.ingredients import Ingredients
from unistep.methods.registry import AnyMethod
from unistep.networks import build_denoiser
from unistep.pairs import Pairs
from unistep.process import EDMProcess
from unistep.teachers.codecs import PixelCodec
from unistep.teachers.conditioners import LabelConditioner
from unistep.teachers.teacher import Teacher
from unistep.training import Streams, TensorImages, TrainingConfig, TrainResult, prepare_network, train
from unistep.weighting import default_weighting

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
    "gan": {"name": "gan"},
    "consistency": {"name": "consistency_training", "last_levels": 9},
}


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
        denoiser=denoiser, process=process, weighting=default_weighting(process), shape=(1, 8, 8), codec=PixelCodec(),
        source="test", sha256="0", conditioner=LabelConditioner(3), config=config,
    )  # fmt: skip


def run_method(folder: Path, name: str, strategy: str = "ddp") -> TrainResult:
    """Three steps, two micro-batches each.

    With guidance: unguided, the scores are equal at the start, and Adam makes steps of their difference's rounding.
    """
    settings = TrainingConfig.model_validate(
        {"steps": 3, "batch": 8, "accumulate": 2, "device": "cpu", "precision": "fp32", "strategy": strategy,
         "checkpoint": {"every_minutes": None}}
    )  # fmt: skip
    teacher, cpu = tiny_teacher(), torch.device("cpu")
    made_of = Ingredients(teacher=teacher, copy=teacher.trainable_copy, steps=3, regression=l2, guidance=1.5,
                          prepare=lambda network: prepare_network(network, settings, cpu))  # fmt: skip
    method = TypeAdapter(AnyMethod).validate_python(METHODS[name]).build(made_of)
    images = TensorImages(torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(2)), torch.arange(20) % 3)
    source = Streams(seed=0, batch=8, pair_batch=4, conditioner=teacher.conditioner, pairs=NoisePairs(),
                     pair_phases=method.pair_phases, images=images, image_phases=method.image_phases)  # fmt: skip
    return train(method, source, settings, folder)
