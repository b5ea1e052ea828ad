"""Tiny methods and runs for the tests of the loop: an MLP regression with two networks and two phases."""

import os
import signal
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from unistep.methods.base import Batch, LossOutput, Method, Phase, Random
from unistep.training import (
    Hooks,
    Streams,
    TensorImages,
    TrainingConfig,
    TrainResult,
    View,
    distributed,
    prepare_network,
    train,
)

CONFIG = {
    "steps": 10,
    "batch": 16,
    "device": "cpu",
    "precision": "fp32",  # equalities are asked for that bf16 does not keep
    "optim": {"default": {"lr": 1e-2, "warmup": 3, "schedule": "cosine"}, "critic": {"lr": 2e-2}},
    "ema": {"half_life": 4.0},
    "checkpoint": {"every_steps": 5, "every_minutes": None},
    "log_every": 1,
}


class Blocks(nn.Module):
    """Two linear layers in a list, so that sharding makes several groups; the second has one output row."""

    def __init__(self, inputs: int, outputs: int, dropout: float = 0.0):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(inputs, 5), nn.Linear(5, outputs)])
        self.drop = nn.Dropout(dropout)
        self.register_buffer("shift", torch.tensor(0.25))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks[1](self.drop(torch.tanh(self.blocks[0](x)))) + self.shift


class TwoPhases(Method):
    """A generator moves points towards real ones, then a critic learns the samples' norm; both count on `rng`."""

    ema_network = "generator"

    def __init__(self, generator: nn.Module, critic: nn.Module):
        self.networks = {"generator": generator, "critic": critic}

    def phases(self, step: int) -> tuple[Phase, ...]:
        return (
            Phase(name="generator", trains=("generator",), loss=partial(self.loss, "generator"), inputs={"images"}),
            Phase(name="critic", trains=("critic",), loss=partial(self.loss, "critic"), reuses_samples=True),
        )

    def milestones(self) -> dict[str, tuple[int, ...]]:
        return {"generator": (6,)}

    def loss(self, phase: str, batch: Batch, rng: Random) -> LossOutput:
        if phase == "generator":
            x = self.networks["generator"](rng.normal(batch.size, 2))
            y = self.networks["generator"](0.5 * rng.normal(batch.size, 2))  # a second pass before the backward pass
            assert batch.real is not None
            judged = self.networks["critic"](x).square().flatten()  # gradients pass through the frozen critic
            terms = {"fit": (x - batch.real).square().mean(1), "small": y.square().mean(1), "judged": judged}
            weights = {"fit": 1.0, "small": 0.5, "judged": 0.1}
            return LossOutput(terms=terms, weights=weights, samples=x.detach(), logs={"level": x.mean()})
        assert batch.samples is not None
        noise = 0.1 * rng.normal(batch.size, 1)
        error = self.networks["critic"](batch.samples) - batch.samples.norm(dim=1, keepdim=True) + noise
        return LossOutput(terms={"critic": error.square().flatten()}, weights={"critic": 1.0})


def config(**changes: object) -> TrainingConfig:
    """The tests' settings with changes."""
    return TrainingConfig.model_validate(CONFIG | changes)


def streams(settings: TrainingConfig) -> Streams:
    """Points around (1, -1)."""
    points = torch.randn(40, 2, generator=torch.Generator().manual_seed(5)) * 0.1 + torch.tensor([1.0, -1.0])
    return Streams(seed=settings.seed, batch=settings.batch, images=TensorImages(points))


def method(settings: TrainingConfig, dropout: float = 0.0, wide: int = 2) -> TwoPhases:
    """Fresh networks from a fixed seed, ready for the ranks at hand."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = [Blocks(wide, 2, dropout), Blocks(2, 1)]
    return TwoPhases(*[prepare_network(n, settings, torch.device("cpu")) for n in networks])


def run(folder: Path, *, dropout: float = 0.0, hooks: Hooks | None = None, **changes: object) -> TrainResult:
    """Trains the stand-in."""
    settings = config(**changes)
    return train(method(settings, dropout), streams(settings), settings, folder, hooks)


def stop_after(step: int, rank: int = 0) -> Hooks:
    """Ctrl-C on one rank during the preview after `step`, with `preview_every=1`; the loop ends with this step."""

    def preview(view: View) -> None:
        if view.step == step and distributed.rank() == rank:
            os.kill(os.getpid(), signal.SIGINT)

    return Hooks(preview=preview)
