"""What a run leaves to be looked at: checkpoints by the clock, TensorBoard, signals, readings of the health monitor."""

import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from stand_ins import Blocks, config, method, run, stop_after, streams
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException, _wrap_exception

from unistep.methods.base import Batch, LossOutput, Method, Phase, Random
from unistep.methods.scores import score_losses
from unistep.training import EMA, EMAConfig, Hooks, SampleStatistics, TrainResult, View, loop, train
from unistep.training.checkpoint import Checkpoints, guarded
from unistep.training.prefetch import Prefetcher
from unistep.training.random import Shard
from unistep.types import Cond

NO_CHECKPOINTS = {"every_steps": None, "every_minutes": None}
SPIKE = 61  # the step, counted from 0


class Slope(Method):
    """A line of gradient 1 whose loss is multiplied once, with what it is told to log."""

    ema_network = "line"

    def __init__(self, name: str = "line", term: str = "out", spike: float = 1.0, **logs: float):
        self.networks: dict[str, nn.Module] = {"line": nn.Linear(1, 1, bias=False)}
        if name != "line":
            self.networks[name] = nn.Linear(1, 1)
        self.term, self.spike, self.logs, self.size = term, spike, logs, 1.0

    def phases(self, step: int) -> tuple[Phase, ...]:
        self.size = self.spike if step == SPIKE else 1.0
        return (Phase(name="line", trains=("line",), loss=partial(self.loss, "line")),)

    def health_losses(self, logs: Mapping[str, float]) -> tuple[float | None, float | None]:
        return score_losses(logs) if "fake_score" in self.networks or "fake_denoise" in self.logs else (None, None)

    def loss(self, phase: str, batch: Batch, rng: Random) -> LossOutput:
        out = self.size * self.networks["line"](torch.ones(batch.size, 1)).flatten()
        logs = {name: torch.tensor(value) for name, value in self.logs.items()}
        return LossOutput(terms={self.term: out}, weights={self.term: 1.0}, logs=logs)


class Sizes:
    def batch(self, step: int, phase: Phase, part: Shard, prefetcher: Prefetcher | None = None) -> Batch:
        return Batch(size=4)


def slope(folder: Path, found: Slope, hooks: Hooks | None = None, **changes: object) -> TrainResult:
    settings = config(optim={"default": {"lr": 1e-9}}, checkpoint=NO_CHECKPOINTS, **changes)
    return train(found, Sizes(), settings, folder, hooks)


def health(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "health.json").read_text())


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# ------------------------------------------------------------------------------------------------------- on the disk


def test_checkpoints_by_the_clock(tmp_path: Path) -> None:
    run(tmp_path / "often", steps=4, checkpoint={"every_steps": None, "every_minutes": 1e-9, "keep": 9})
    run(tmp_path / "never", steps=4, checkpoint={"every_steps": None, "every_minutes": 1e9, "keep": 9})
    assert Checkpoints(tmp_path / "often" / "checkpoints").steps() == [1, 2, 3, 4]
    assert Checkpoints(tmp_path / "never" / "checkpoints").steps() == [4]


def test_tensorboard_holds_the_logged_scalars(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, steps=3)
    assert len(list((tmp_path / "tensorboard").glob("events*"))) == 1
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    lines = metrics(tmp_path)
    for name in ("loss/fit", "lr/critic", "grad_norm/generator"):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in lines]


# ----------------------------------------------------------------------------------------------------------- signals


@contextmanager
def handled_by_us(number: int) -> Iterator[Any]:
    """A handler of the caller's, which the loop must replace and give back."""

    def refuse(number: int, frame: object) -> None:
        raise AssertionError(f"signal {number} reached the caller")

    before = signal.signal(number, refuse)
    try:
        yield refuse
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_its_step_and_says_how_to_go_on(tmp_path: Path, number: int) -> None:
    def preview(view: View) -> None:
        if view.step == 3:
            os.kill(os.getpid(), number)

    lines: list[str] = []
    hooks = Hooks(preview=preview, message=lines.append)
    settings = config(preview_every=1, checkpoint=NO_CHECKPOINTS)
    with handled_by_us(number) as handler:
        result = train(method(settings), streams(settings), settings, tmp_path, hooks)
        assert signal.getsignal(number) is handler
    assert (result.stopped, result.step) == ("signal", 3)
    assert result.checkpoint == tmp_path / "checkpoints" / "step-0000003"
    assert lines[-1] == "stopped after step 3, saved; the same command goes on from here"
    assert Checkpoints(tmp_path / "checkpoints").steps() == [3]
    assert run(tmp_path).stopped == "done"


@pytest.mark.parametrize("moment", ["train_step", "evaluate", "save"])
def test_a_signal_in_the_last_step_is_not_swallowed(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(when: bool) -> None:
        if when:
            os.kill(os.getpid(), signal.SIGINT)

    def evaluate(view: View) -> float:
        interrupt(moment == "evaluate")
        return 1.0

    step, save = loop.train_step, Checkpoints.save
    if moment == "train_step":
        monkeypatch.setattr(loop, "train_step", lambda s, *a: (interrupt(s.step == 9), step(s, *a))[1])
    if moment == "save":
        monkeypatch.setattr(Checkpoints, "save", lambda *a: (save(*a), interrupt(True))[0])
    lines: list[str] = []
    settings = config(checkpoint=NO_CHECKPOINTS)
    hooks = Hooks(evaluate=evaluate, message=lines.append)
    result = train(method(settings), streams(settings), settings, tmp_path, hooks)
    assert (result.stopped, result.step) == ("signal", 10)
    assert lines[-1] == "stopped after step 10, saved; the same command goes on from here"
    assert Checkpoints(tmp_path / "checkpoints").steps() == [10]
    assert (result.best_step, result.best_score) == (10, 1.0)
    monkeypatch.undo()
    assert run(tmp_path).stopped == "done"


def test_a_second_signal_ends_an_evaluation_at_once_and_loses_nothing(tmp_path: Path) -> None:
    def endless(view: View) -> float:
        while True:
            os.kill(os.getpid(), signal.SIGINT)

    settings = config(evaluate_every=4, checkpoint=NO_CHECKPOINTS)
    with pytest.raises(KeyboardInterrupt):
        train(method(settings), streams(settings), settings, tmp_path, Hooks(evaluate=endless))
    assert Checkpoints(tmp_path / "checkpoints").steps() == [4]
    assert run(tmp_path).stopped == "done"


def test_a_ctrl_c_that_the_checkpoint_library_wraps_is_one_again(tmp_path: Path) -> None:
    def interrupted() -> None:
        raise CheckpointException("save", {0: _wrap_exception(KeyboardInterrupt())})

    with pytest.raises(KeyboardInterrupt):
        guarded(tmp_path, interrupted)


# ------------------------------------------------------------------------------------------------- the health monitor


def test_health_is_the_same_after_an_interruption(tmp_path: Path) -> None:
    watched = Hooks(reference=SampleStatistics(mean=9.0, std=0.1), diversity=lambda x, cond: 0.2)
    run(tmp_path / "whole", hooks=watched, log_every=3)
    stopped = run(
        tmp_path / "halves", hooks=replace(watched, preview=stop_after(6).preview), log_every=3, preview_every=1
    )
    assert stopped.step == 6
    run(tmp_path / "halves", hooks=watched, log_every=3)
    assert health(tmp_path / "whole")["last"].keys() >= {"mean", "diversity", "grad/generator", "grad/critic"}
    assert health(tmp_path / "halves") == health(tmp_path / "whole")


def test_both_denoising_losses_reach_the_monitor(tmp_path: Path) -> None:
    slope(tmp_path, Slope(fake_denoise=1.0, teacher_denoise=4.0), steps=1)
    last = health(tmp_path)["last"]
    assert (last["fake_loss"], last["fake_over_teacher"]) == (1.0, 0.25)


def test_the_fake_scores_own_term_serves_in_their_place(tmp_path: Path) -> None:
    slope(tmp_path / "with", Slope("fake_score", "denoise"), steps=1)
    last = health(tmp_path / "with")["last"]
    assert last["fake_loss"] == metrics(tmp_path / "with")[0]["loss/denoise"]
    assert "fake_over_teacher" not in last
    slope(tmp_path / "without", Slope("other", "denoise"), steps=1)
    assert "fake_loss" not in health(tmp_path / "without")["last"]


def test_gradient_norms_reach_the_monitor(tmp_path: Path) -> None:
    run(tmp_path, steps=2)
    last, line = health(tmp_path)["last"], metrics(tmp_path)[-1]
    for name in ("generator", "critic"):
        assert last[f"grad/{name}"] == line[f"grad_norm/{name}"] > 0


def test_a_spike_between_two_log_lines_rings(tmp_path: Path) -> None:
    slope(tmp_path, Slope(spike=200.0), steps=80, log_every=5)
    report = health(tmp_path)
    assert [(alarm["step"], alarm["name"]) for alarm in report["alarms"]] == [(65, "gradient_explosion")]
    assert "the gradient of line is 200 times its running median" in report["alarms"][0]["words"]
    assert {line["grad_norm/line"] for line in metrics(tmp_path)} == {1.0}
    assert report["last"] == {"grad/line": 1.0}


def test_a_spike_before_an_interruption_rings_too(tmp_path: Path) -> None:
    slope(tmp_path, Slope(spike=200.0), stop_after(62), steps=80, log_every=5, preview_every=1)
    assert health(tmp_path)["alarms"] == []
    slope(tmp_path, Slope(spike=200.0), steps=80, log_every=5)
    assert [(alarm["step"], alarm["name"]) for alarm in health(tmp_path)["alarms"]] == [(65, "gradient_explosion")]


def test_the_hook_judges_the_diversity_of_all_samples_of_the_step(tmp_path: Path) -> None:
    seen: list[tuple[torch.Size, Cond]] = []

    def diversity(x: Tensor, cond: Cond) -> float:
        seen.append((x.shape, cond))
        return 0.25

    run(tmp_path / "with", steps=1, accumulate=2, hooks=Hooks(diversity=diversity))
    assert seen == [(torch.Size([16, 2]), None)]
    (line,) = metrics(tmp_path / "with")
    assert line["samples/diversity"] == health(tmp_path / "with")["last"]["diversity"] == 0.25
    run(tmp_path / "without", steps=1)
    (plain,) = metrics(tmp_path / "without")
    assert "samples/diversity" not in plain and plain["samples/mean"] == pytest.approx(line["samples/mean"])


# -------------------------------------------------------------------------------------------------- the view of a run


@pytest.mark.parametrize("average", [False, True])
def test_a_network_is_looked_at_in_eval_mode_and_left_as_it_was(tmp_path: Path, average: bool) -> None:
    network = nn.ModuleDict({"learning": Blocks(2, 2, dropout=0.5), "frozen": Blocks(2, 2, dropout=0.5).eval()})
    ema = EMA(network, EMAConfig(half_life=3.0)) if average else None
    view = View(step=0, method=Slope(), network=network, ema=ema, run_dir=tmp_path, device=torch.device("cpu"))
    before = {name: module.training for name, module in network.named_modules()}
    assert set(before.values()) == {False, True}
    x = torch.ones(64, 2)
    with pytest.raises(RuntimeError), view.averaged() as lent:
        assert lent is network and not any(module.training for module in lent.modules())
        assert torch.equal(lent["learning"](x)[0], lent["learning"](x)[1])  # type: ignore[index]
        raise RuntimeError
    assert {name: module.training for name, module in network.named_modules()} == before


def test_dropout_is_off_in_previews_and_evaluations(tmp_path: Path) -> None:
    seen: list[tuple[bool, bool]] = []

    def look(view: View) -> float:
        with view.averaged() as network:
            inside = any(module.training for module in network.modules())
        seen.append((inside, view.network.training))
        return 0.0

    hooks = Hooks(evaluate=look, preview=lambda view: None if look(view) else None)
    run(tmp_path, dropout=0.5, hooks=hooks, steps=2, preview_every=1, evaluate_every=1)
    assert seen == [(False, True)] * 5
