"""Working ahead in a thread changes no number, and leaves no thread behind, whatever happens."""

import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from stand_ins import TwoPhases, config, method, stop_after, streams
from tiny_dmd import tiny_method

from unistep.errors import UserError
from unistep.methods.base import Batch, LossOutput, Method, Phase, Random
from unistep.training import Streams, TrainingConfig, TrainResult, random, train
from unistep.training import loop as loop_module
from unistep.training.batches import BatchSource
from unistep.training.prefetch import Prefetcher
from unistep.training.random import Shard, StepRandom

CPU = torch.device("cpu")


class Forced(loop_module.Trainer):
    """A run that works ahead on the CPU too."""

    def __init__(self, *args: object, **kwargs: object):
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.prefetcher = Prefetcher(CPU)


@pytest.fixture
def drawn_by(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which thread made each draw of a run that works ahead."""
    names: list[str] = []
    make = random.draw

    def noting(*args: object) -> torch.Tensor:
        names.append(threading.current_thread().name)
        return make(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(loop_module, "Trainer", Forced)
    monkeypatch.setattr("unistep.training.random.draw", noting)
    monkeypatch.setattr("unistep.training.prefetch.draw", noting)
    return names


def tensors(result: TrainResult) -> dict[str, torch.Tensor]:
    (file,) = result.checkpoint.glob("*.safetensors")
    return load_file(file)


def assert_equal(found: TrainResult, expected: TrainResult) -> None:
    found_tensors = tensors(found)
    for name, value in tensors(expected).items():
        assert torch.equal(found_tensors[name], value), name


def learn(made: tuple[Method, BatchSource, TrainingConfig], folder: Path, **kwargs: object) -> TrainResult:
    return train(*made, folder, **kwargs)  # type: ignore[arg-type]


class Changing(TwoPhases):
    """Draws other numbers of rows, and more of them, from one step to the next."""

    def phases(self, step: int) -> tuple[Phase, ...]:
        self.step = step
        return super().phases(step)

    def loss(self, phase: str, batch: Batch, rng: Random) -> LossOutput:
        for _ in range(self.step % 3):
            rng.uniform(batch.size)
        return super().loss(phase, batch, rng)


@pytest.mark.parametrize("changes", [{}, {"accumulate": 4}])
@pytest.mark.parametrize("kind", [TwoPhases, Changing])
def test_a_run_learns_the_same_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[TwoPhases], changes: dict[str, int],
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    def made() -> tuple[Method, BatchSource, TrainingConfig]:
        settings = config(**changes)
        return kind(*method(settings).networks.values()), streams(settings), settings

    expected = learn(made(), tmp_path / "plain")
    drawn_by = request.getfixturevalue("drawn_by")
    found = learn(made(), tmp_path / "ahead")
    assert_equal(found, expected)
    assert drawn_by.count("unistep-prefetch_0") > 0
    if kind is TwoPhases:  # the first step of each stream alone is drawn by the loop
        assert drawn_by.count("MainThread") == 3 * changes.get("accumulate", 1)


@pytest.mark.parametrize("name", ["dmd", pytest.param("dmd2", marks=pytest.mark.slow)])
def test_pairs_and_conditions_come_ahead_too(tmp_path: Path, name: str, request: pytest.FixtureRequest) -> None:
    expected = learn(tiny_method(name, "none"), tmp_path / "plain")
    request.getfixturevalue("drawn_by")
    read: list[str] = []
    made = tiny_method(name, "none")
    assert isinstance(made[1], Streams)
    condition = made[1].condition
    made[1].condition = lambda *args: read.append(threading.current_thread().name) or condition(*args)  # type: ignore
    assert_equal(learn(made, tmp_path / "ahead"), expected)
    assert {"MainThread", "unistep-prefetch_0"} == set(read)


def test_a_stop_and_a_resume_change_nothing(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    settings = config(preview_every=1)
    expected = train(method(settings), streams(settings), settings, tmp_path / "whole")
    request.getfixturevalue("drawn_by")
    stopped = train(method(settings), streams(settings), settings, tmp_path / "halves", stop_after(5))
    assert stopped.stopped == "signal" and not working_threads()
    assert_equal(train(method(settings), streams(settings), settings, tmp_path / "halves"), expected)


def working_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("unistep-prefetch")]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.usefixtures("drawn_by")
def test_no_thread_outlives_an_error(tmp_path: Path, error: type[BaseException]) -> None:
    class Failing(TwoPhases):
        calls = 0

        def loss(self, phase: str, batch: Batch, rng: Random) -> LossOutput:
            self.calls += 1
            if self.calls == 6:
                assert working_threads()
                raise error("in the third step")
            return super().loss(phase, batch, rng)

    settings = config()
    with pytest.raises(error, match="in the third step"):
        train(Failing(*method(settings).networks.values()), streams(settings), settings, tmp_path)
    assert not working_threads()


def test_what_fails_ahead_fails_where_it_is_taken() -> None:
    def fail() -> None:
        raise UserError("shard 3 is damaged")

    ahead = Prefetcher(CPU)
    try:
        ahead.submit(4, "pairs", fail)
        assert ahead.take(3, "pairs", lambda: "made now") == "made now"
        with pytest.raises(UserError, match="shard 3 is damaged"):
            ahead.take(4, "pairs", lambda: None)
        ahead.submit(4, "pairs", lambda: "old")
        ahead.discard_before(5)
        assert not ahead.pending
    finally:
        ahead.close()


def test_a_draw_that_was_not_foreseen_is_the_same_number() -> None:
    plain, ahead = StepRandom(0, 1, "g", Shard(1, 2)), Prefetcher(CPU)
    try:
        before = StepRandom(0, 0, "g", Shard(1, 2))
        before.normal(3, 2), before.integers(3, 0, 9), before.uniform(3)
        ahead.prefetch_draws(0, 1, "g", before)
        rng = ahead.random(0, 1, "g", Shard(1, 2))
        assert [request[0] for request, _ in rng.ready] == ["normal", "integers", "uniform"]
        assert torch.equal(rng.normal(3, 2), plain.normal(3, 2))
        assert torch.equal(rng.integers(3, 0, 8), plain.integers(3, 0, 8))  # 9 was foreseen
        assert torch.equal(rng.uniform(3), plain.uniform(3)) and torch.equal(rng.uniform(4), plain.uniform(4))
    finally:
        ahead.close()
