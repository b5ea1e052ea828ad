"""One training step against its formulas written out: clipping, AdamW, warm-up, milestones, average; precision."""

import math
from dataclasses import dataclass, field
from functools import partial

import pytest
import torch
from stand_ins import config, method, streams
from torch import Tensor, nn

from unistep.methods.base import Batch, LossOutput, Method, Phase, Random
from unistep.training import TrainingConfig, prepare_network
from unistep.training.health import HealthMonitor
from unistep.training.prefetch import Prefetcher
from unistep.training.random import Shard
from unistep.training.state import TrainState
from unistep.training.step import train_step

CPU = torch.device("cpu")
LR, BETA1, BETA2, EPS, DECAY, CLIP, KEEP = 0.1, 0.8, 0.9, 1e-3, 0.05, 0.7, 0.75
WARMUP, MILESTONE, STEPS = 2, 3, 6


class Target(Method):
    """(w x - 1)^2 / 2 for one linear layer; the batch is the step's own."""

    ema_network = "line"

    def __init__(self) -> None:
        line = nn.Linear(3, 1, bias=False, dtype=torch.float64)
        line.weight.data = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)
        self.networks = {"line": line}

    def phases(self, step: int) -> tuple[Phase, ...]:
        return (Phase(name="line", trains=("line",), loss=partial(self.loss, "line")),)

    def milestones(self) -> dict[str, tuple[int, ...]]:
        return {"line": (MILESTONE,)}

    def loss(self, phase: str, batch: Batch, rng: Random) -> LossOutput:
        miss = self.networks["line"](batch.real).flatten() - 1
        return LossOutput(terms={"miss": miss.square()}, weights={"miss": 0.5})


class Rows:
    """Four fixed rows per step, of which each step's gradient is longer or shorter than the clipping norm."""

    def batch(self, step: int, phase: Phase, part: Shard, prefetcher: Prefetcher | None = None) -> Batch:
        return Batch(size=4, real=rows(step))


def rows(step: int) -> Tensor:
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
    return x if step % 2 else 0.05 * x


@dataclass
class ByHand:
    """AdamW with everything around it, in plain float64 arithmetic."""

    forget: bool
    w: Tensor = field(default_factory=lambda: torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64))
    m: Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))
    v: Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))
    updates: int = 0

    def __post_init__(self) -> None:
        self.average = self.w.clone()

    def step(self, step: int) -> tuple[float, float]:
        """Learning rate and gradient norm of the step."""
        x = rows(step)
        g = ((x @ self.w - 1)[:, None] * x).mean(0)
        norm = float(g.norm())
        g = g * min(1.0, CLIP / (norm + 1e-6))
        since = step - MILESTONE if step >= MILESTONE else step
        lr = LR * min(1.0, (since + 1) / WARMUP)
        if self.forget and step == MILESTONE:
            self.m, self.v, self.updates = 0 * self.m, 0 * self.v, 0
        self.updates += 1
        self.m = BETA1 * self.m + (1 - BETA1) * g
        self.v = BETA2 * self.v + (1 - BETA2) * g**2
        m, v = self.m / (1 - BETA1**self.updates), self.v / (1 - BETA2**self.updates)
        self.w = self.w * (1 - lr * DECAY) - lr * m / (v.sqrt() + EPS)
        self.average = KEEP * self.average + (1 - KEEP) * self.w
        return lr, norm


def settings(forget: bool) -> TrainingConfig:
    optim = {
        "lr": LR, "betas": (BETA1, BETA2), "eps": EPS, "weight_decay": DECAY, "clip": CLIP, "warmup": WARMUP,
        "reset_at_milestones": forget,
    }  # fmt: skip
    changes = {"steps": STEPS, "batch": 4, "device": "cpu", "precision": "fp32", "optim": {"default": optim}}
    return TrainingConfig.model_validate(changes | {"ema": {"decay": KEEP, "ramp_up": None}})


@pytest.mark.parametrize("forget", [False, True])
def test_each_step_is_clipped_adamw_with_warm_up_milestones_and_average(forget: bool) -> None:
    training, hand = settings(forget), ByHand(forget)
    state = TrainState.start(Target(), training, HealthMonitor())
    norms = []
    for step in range(STEPS):
        report = train_step(state, Rows(), training, CPU)
        lr, norm = hand.step(step)
        norms.append(norm)
        assert state.step == step + 1
        assert report.lrs == {"line": pytest.approx(lr, rel=1e-12)}
        assert float(report.norms["line"]) == pytest.approx(norm, rel=1e-9)
        weight = state.method.networks["line"].weight.flatten()
        torch.testing.assert_close(weight.detach(), hand.w, rtol=1e-9, atol=1e-9)
        assert state.ema is not None
        torch.testing.assert_close(state.ema.shadow["weight"].flatten(), hand.average.float(), rtol=1e-6, atol=1e-6)
    assert min(norms) < CLIP < max(norms)


def test_a_milestone_is_of_one_network() -> None:
    training = config(optim={"default": {"lr": 1.0, "warmup": 3}})
    stand_in = method(training)
    assert stand_in.milestones() == {"generator": (6,)}
    state, rise = TrainState.start(stand_in, training, HealthMonitor()), [1 / 3, 2 / 3, 1.0]
    rates = [train_step(state, streams(training), training, CPU).lrs for _ in range(10)]
    assert [rate["generator"] for rate in rates] == [*rise, 1.0, 1.0, 1.0, *rise, 1.0]
    assert [rate["critic"] for rate in rates] == [*rise, *[1.0] * 7]


class Recording(Target):
    """Takes note of the arithmetic its loss runs in."""

    def __init__(self) -> None:
        super().__init__()
        self.networks["line"].float()
        self.seen: list[tuple[bool, torch.dtype]] = []

    def loss(self, phase: str, batch: Batch, rng: Random) -> LossOutput:
        assert batch.real is not None
        out = self.networks["line"](batch.real.float())
        self.seen.append((torch.is_autocast_enabled("cpu"), out.dtype))
        return LossOutput(terms={"out": out.float().flatten().square()}, weights={"out": 1.0})


@pytest.mark.parametrize(("precision", "seen"), [("fp32", (False, torch.float32)), ("bf16", (True, torch.bfloat16))])
def test_the_methods_loss_runs_in_the_precision_asked_for(precision: str, seen: tuple[bool, torch.dtype]) -> None:
    training, recording = settings(False).model_copy(update={"precision": precision}), Recording()
    train_step(TrainState.start(recording, training, HealthMonitor()), Rows(), training, CPU)
    assert recording.seen == [seen]
    assert recording.networks["line"].weight.dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("asked", [False, True])
def test_channels_last_reaches_weights_and_moments(asked: bool) -> None:
    training = config(channels_last=asked)
    network = prepare_network(nn.Conv2d(3, 4, 3), training, CPU)
    assert network.weight.is_contiguous(memory_format=torch.channels_last) is asked  # type: ignore[union-attr]
    stand_in = method(config(channels_last=asked))
    stand_in.networks = {"generator": network}
    moments = TrainState.start(stand_in, config(optim={"default": {}}), HealthMonitor()).optimizers["generator"].state()
    assert moments["weight.exp_avg"].is_contiguous(memory_format=torch.channels_last) is asked


def test_layers_draw_from_the_step_and_not_from_the_callers_seed() -> None:
    found = []
    for seed in (1, 2):
        training = config()
        state = TrainState.start(method(training, dropout=0.5), training, HealthMonitor())
        torch.manual_seed(seed)
        with torch.random.fork_rng():
            found.append(train_step(state, streams(training), training, CPU).scalars())
    assert found[0] == found[1] and all(math.isfinite(value) for value in found[0].values())
