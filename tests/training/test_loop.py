"""One rank through the loop: accumulation, phases, finite checks, evaluation, previews, records."""

import json
import os
import stat
from functools import partial
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from stand_ins import TwoPhases, config, method, run, streams

from unistep.errors import UserError
from unistep.methods.base import Batch, LossOutput, Phase, Random
from unistep.training import Hooks, NonFiniteError, SampleStatistics, TrainingConfig, TrainResult, View, train
from unistep.training.checkpoint import Checkpoints
from unistep.training.health import HealthMonitor
from unistep.training.state import TrainState
from unistep.training.step import train_step


def checkpoint_tensors(result: TrainResult) -> dict[str, torch.Tensor]:
    (file,) = result.checkpoint.glob("*.safetensors")
    return load_file(file)


@pytest.mark.parametrize("accumulate", [2, 4, 16])
def test_accumulation_equals_the_full_batch(tmp_path: Path, accumulate: int) -> None:
    expected = checkpoint_tensors(run(tmp_path / "full"))
    found = checkpoint_tensors(run(tmp_path / "parts", accumulate=accumulate))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5)


def test_each_phase_moves_only_its_networks() -> None:
    settings = config()
    state = TrainState.start(method(settings), settings, HealthMonitor())
    moved: dict[str, list[str]] = {}

    class Watching(TwoPhases):
        def loss(self, phase: str, batch: Batch, rng: Random) -> LossOutput:
            moved[phase] = [n for n, net in self.networks.items() if any(p.requires_grad for p in net.parameters())]
            return super().loss(phase, batch, rng)

    state.method = Watching(*state.method.networks.values())
    report = train_step(state, streams(settings), settings, torch.device("cpu"))
    assert moved == {"generator": ["generator"], "critic": ["critic"]}
    assert report.scalars().keys() >= {"loss/fit", "loss/critic", "grad_norm/generator", "lr/critic", "level"}
    assert all(p.grad is None for net in state.method.networks.values() for p in net.parameters())

    class OnlyTheFirst(TwoPhases):
        def phases(self, step: int) -> tuple[Phase, ...]:
            return super().phases(step)[:1]

    state.method = OnlyTheFirst(*state.method.networks.values())
    report = train_step(state, streams(settings), settings, torch.device("cpu"))
    assert set(report.lrs) == {"generator"}  # a network that rests has no rate


class Breaking(TwoPhases):
    """Goes wrong at the fourth generator phase, in the way asked for."""

    def __init__(self, way: str, *networks: torch.nn.Module):
        super().__init__(*networks)
        self.way, self.calls = way, 0

    def loss(self, phase: str, batch: Batch, rng: Random) -> LossOutput:
        output = super().loss(phase, batch, rng)
        self.calls += phase == "generator"
        if phase == "generator" and self.calls == 4:
            if self.way == "term":
                output.terms["small"][2] = float("inf")  # type: ignore[index]
            elif self.way == "gradient":
                output.terms["small"].register_hook(lambda g: g * float("nan"))  # type: ignore[union-attr]
            else:
                self.networks["generator"].blocks[1].bias.data[0] = float("nan")  # type: ignore[index]
        return output


@pytest.mark.parametrize(
    ("way", "what"),
    [
        ("term", "loss term small"),
        ("gradient", "gradient of blocks.0.weight"),
        ("parameter", "parameter blocks.1.bias"),
    ],
)
def test_what_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path: Path, way: str, what: str) -> None:
    settings = config(checkpoint={"every_steps": 1, "every_minutes": None})
    broken = Breaking(way, *method(settings).networks.values())
    with pytest.raises(
        NonFiniteError, match=f"^{what} is not finite: network generator, phase generator, step 3, rank 0"
    ):
        train(broken, streams(settings), settings, tmp_path)
    assert Checkpoints(tmp_path / "checkpoints").steps() == [2, 3]
    run(tmp_path, checkpoint={"every_steps": 1, "every_minutes": None})
    whole = checkpoint_tensors(run(tmp_path / "whole"))
    (file,) = (tmp_path / "checkpoints" / "step-0000010").glob("*.safetensors")
    assert all(torch.equal(value, whole[name]) for name, value in load_file(file).items())


def test_weights_that_overflowed_are_not_saved(tmp_path: Path) -> None:
    settings = config(steps=1, checkpoint={"every_steps": 1, "every_minutes": None})
    spoilt = method(settings)

    def spoil(view: View) -> None:
        if view.step == 1:
            next(view.network.parameters()).data.fill_(float("inf"))

    with pytest.raises(
        NonFiniteError, match=r"parameter blocks.0.weight is not finite: network generator, phase checkpoint"
    ):
        train(spoilt, streams(settings), settings, tmp_path, Hooks(preview=spoil))
    assert Checkpoints(tmp_path / "checkpoints").steps() == []


def test_the_best_evaluation_is_kept(tmp_path: Path) -> None:
    scores = {2: 5.0, 4: 1.0, 6: 3.0, 8: 1.5, 10: 2.0}
    seen: list[float] = []

    def evaluate(view: View) -> dict[str, float]:
        raw = next(view.network.parameters()).clone()
        with view.averaged() as network:
            seen.append(float((next(network.parameters()) - raw).abs().max()))
        return {"score": scores[view.step], "other": 7.0}

    settings = config(evaluate_every=2, checkpoint={"every_steps": 1, "every_minutes": None, "keep": 1})
    result = train(method(settings), streams(settings), settings, tmp_path, Hooks(evaluate=evaluate))
    assert (result.best_step, result.best_score) == (4, 1.0)
    assert Checkpoints(tmp_path / "checkpoints").steps() == [4, 10]
    assert min(seen) > 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line.get("evaluation/other") == 7.0] == [2, 4, 6, 8, 10]
    plain = train(
        method(settings), streams(settings), settings, tmp_path / "b", Hooks(evaluate=lambda view: -view.step)
    )
    assert plain.best_step == 10


def test_an_evaluation_that_fails_loses_nothing(tmp_path: Path) -> None:
    def fail(view: View) -> float:
        raise UserError(f"cannot judge step {view.step}")

    settings = config(evaluate_every=None, checkpoint={"every_steps": None, "every_minutes": None})
    with pytest.raises(UserError, match="cannot judge step 10"):
        train(method(settings), streams(settings), settings, tmp_path, Hooks(evaluate=fail))
    assert Checkpoints(tmp_path / "checkpoints").steps() == [10]
    assert train(method(settings), streams(settings), settings, tmp_path).stopped == "done"


def test_hooks_do_not_change_what_is_learnt(tmp_path: Path) -> None:
    def noisy(view: View) -> float:
        with view.averaged():
            return float(torch.randn(()))

    settings, lines = config(preview_every=3, evaluate_every=3), []
    hooks = Hooks(evaluate=noisy, preview=lambda view: None if noisy(view) else None, message=lines.append)
    found = checkpoint_tensors(train(method(settings), streams(settings), settings, tmp_path / "a", hooks))
    for name, value in checkpoint_tensors(run(tmp_path / "b")).items():
        assert torch.equal(found[name], value)
    assert any(line.startswith("step 10/10  fit ") and "images/s" in line for line in lines)


def test_health_is_written(tmp_path: Path) -> None:
    lines: list[str] = []
    settings = config()
    reference = SampleStatistics(mean=9.0, std=0.1)
    hooks = Hooks(reference=reference, diversity=lambda x, cond: 0.2, message=lines.append)
    train(method(settings), streams(settings), settings, tmp_path, hooks)
    report = json.loads((tmp_path / "health.json").read_text())
    assert report["ringing"] == ["diversity_collapse", "sample_drift"]
    assert [line for line in lines if line.startswith("health, step 5: samples are darker than the teacher's")]


def test_caller_random_state_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.randn(3)
    torch.manual_seed(3)
    run(tmp_path, steps=2, deterministic=True)
    assert torch.equal(torch.randn(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()


def test_mistakes_of_a_method_are_named() -> None:
    settings = config()

    class Wrong(TwoPhases):
        chosen: tuple[Phase, ...] = ()

        def phases(self, step: int) -> tuple[Phase, ...]:
            return self.chosen

        def loss(self, phase: str, batch: Batch, rng: Random) -> LossOutput:
            return LossOutput(terms={"a": super().loss("generator", batch, rng).terms["fit"]},
                              weights={"a": 1.0})  # fmt: skip

    for values, words in (
        (dict(trains=("critic", "generator")), "trains 'critic', but its loss does not depend on that"),
        (dict(trains=("other",)), "trains 'other', expected one of"),
        (dict(trains=("critic",), reuses_samples=True), "no earlier phase of the step returned any"),
    ):
        wrong = Wrong(*method(settings).networks.values())
        wrong.chosen = (Phase(name="a", loss=partial(wrong.loss, "a"), inputs={"images"}, **values),)
        state = TrainState.start(wrong, settings, HealthMonitor())
        with pytest.raises(ValueError, match=words):
            train_step(state, streams(settings), settings, torch.device("cpu"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(UserError, match="cannot be written"):
        run(tmp_path / "run")


def test_a_file_in_the_way_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(
        UserError, match=r"run: cannot be written \((File exists|Not a directory)\); free space or choose"
    ):
        run(tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "where"),
    [({"stepz": 1}, "stepz"), ({"steps": "10"}, "steps"), ({"precision": "fp16"}, "precision"),
     ({"optim": {"default": {"lr": -1.0}}}, "optim.default.lr"), ({"batch": 0}, "batch")],
)  # fmt: skip
def test_settings_are_strict(change: dict[str, object], where: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TrainingConfig.model_validate({"steps": 1, "batch": 1} | change)
    assert ".".join(map(str, caught.value.errors()[0]["loc"])) == where
