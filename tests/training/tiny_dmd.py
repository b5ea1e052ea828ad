"""DMD with small U-Nets through the loop, for the tests on two ranks."""

from collections.abc import Mapping
from pathlib import Path
from unittest import mock

import torch

from unistep.losses.regression import l2
from unistep.methods import DMD, DMDConfig
from unistep.networks import Generator, build_denoiser
from unistep.pairs import Pairs
from unistep.process import EDMProcess
from unistep.teachers.codecs import PixelCodec
from unistep.teachers.conditioners import LabelConditioner
from unistep.teachers.teacher import Teacher
from unistep.training import Streams, TrainingConfig, TrainResult, prepare_network, step, train
from unistep.training.distributed import full_tensor
from unistep.training.health import HealthMonitor
from unistep.training.state import TrainState
from unistep.training.step import PhaseRun, StepReport, update
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


def tiny_dmd(strategy: str) -> tuple[DMD, Streams, TrainingConfig]:
    """Method, batches and settings of three steps, two micro-batches each."""
    settings = TrainingConfig.model_validate(
        {"steps": 3, "batch": 8, "accumulate": 2, "device": "cpu", "precision": "fp32", "strategy": strategy,
         "checkpoint": {"every_minutes": None}}
    )  # fmt: skip
    process = EDMProcess()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = {"network": NETWORK, "process": process.config()}
        denoiser = build_denoiser(config)
        with torch.no_grad():  # a teacher whose blocks all matter
            for p in denoiser.parameters():
                p.add_(0.02 * torch.randn_like(p))
    teacher = Teacher(
        denoiser=denoiser, process=process, weighting=default_weighting(process), shape=(1, 8, 8), codec=PixelCodec(),
        source="test", sha256="0", conditioner=LabelConditioner(3), config=config,
    )  # fmt: skip
    cpu = torch.device("cpu")
    generator = prepare_network(Generator(teacher.trainable_copy(), process), settings, cpu)
    fake_score = prepare_network(teacher.trainable_copy(), settings, cpu)
    method = DMD(teacher, generator, fake_score, DMDConfig(regression="l2", fake_score_updates_per_step=2), l2)
    source = Streams(seed=0, batch=8, pair_batch=4, conditioner=teacher.conditioner, pairs=NoisePairs(),
                     pair_phases=("generator", "regression"))  # fmt: skip
    return method, source, settings


def run_dmd(folder: Path, strategy: str = "ddp") -> TrainResult:
    """The three steps through the loop."""
    return train(*tiny_dmd(strategy), folder)


def first_gradients(strategy: str = "ddp") -> dict[str, torch.Tensor]:
    """`network:parameter` -> the whole gradient of the network's first update, at weights all ranks start with."""
    method, source, settings = tiny_dmd(strategy)
    found: dict[str, torch.Tensor] = {}

    def note(run: PhaseRun, finite: Mapping[str, torch.Tensor], report: StepReport) -> None:
        for name, network in run.trained.items() if run.phase.name in ("generator", "fake_score") else ():
            found.update({f"{name}:{key}": whole(p.grad) for key, p in network.parameters.items()})
        update(run, finite, report)

    with mock.patch.object(step, "update", note):
        step.train_step(TrainState.start(method, settings, HealthMonitor()), source, settings, torch.device("cpu"))
    return found


def whole(gradient: torch.Tensor | None) -> torch.Tensor:
    assert gradient is not None
    return full_tensor(gradient).clone()
