"""Files that are compared later: the same bytes in every process, and tied to the run that made them."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from unistep.cli.errors import describe_os_error, interrupt_on_signals
from unistep.errors import UserError
from unistep.networks.weights_file import sort_metadata
from unistep.run.continue_run import mark_finished
from unistep.teachers.checkpoint import checkpoint_sha256, read_checkpoint, read_generator, save_state
from unistep.training import distributed, tracking
from unistep.training.signals import StopSignals
from unistep.training.tracking import Tracker

WRITE = """
import sys, torch
from pathlib import Path
from safetensors.torch import save_file
from unistep.networks.weights_file import sort_metadata
file = Path(sys.argv[1])
save_file({"b": torch.ones(2), "a": torch.zeros(3)}, file, metadata={k: "ä\\n" + k for k in "qwertzuiop"})
sort_metadata(file)
"""


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    files = [tmp_path / "1.safetensors", tmp_path / "2.safetensors"]
    for file in files:
        subprocess.run([sys.executable, "-c", WRITE, str(file)], check=True)
    assert len({hashlib.sha256(file.read_bytes()).hexdigest() for file in files}) == 1
    with safe_open(files[0], "pt") as opened:
        assert [*json.loads(json.dumps(opened.metadata()))] and opened.metadata()["q"] == "ä\nq"
    assert torch.equal(load_file(files[0])["b"], torch.ones(2))


def test_sorted_metadata_are_in_order(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(3)}, file, metadata=dict.fromkeys("zyxwv", "1"))
    sort_metadata(file)
    data = file.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert [*header["__metadata__"]] == [*"vwxyz"]


# ------------------------------------------------------------------------------------------------ a run's generator


@pytest.fixture
def generator(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "generator"
    save_state(folder, {"a": torch.arange(3.0)}, {"t_init": 80.0})
    (folder.parent / "run.json").write_text(json.dumps({"generator": {"sha256": checkpoint_sha256(folder)}}))
    return folder


def test_the_recorded_generator_is_read(generator: Path) -> None:
    assert read_generator(generator.parent)[3] == checkpoint_sha256(generator) == read_checkpoint(generator)[2]


def test_a_generator_that_was_changed_is_refused(generator: Path) -> None:
    config = generator / "config.json"
    config.write_text(config.read_text().replace("80.0", "79.0"))
    with pytest.raises(UserError, match=r"found sha256 .*, expected .* as in .*run\.json: it was changed after"):
        read_generator(generator.parent)


def test_runs_without_a_record_still_open(generator: Path) -> None:
    (generator / "config.json").write_text((generator / "config.json").read_text().replace("80.0", "79.0"))
    for text in ("{}", '{"generator": {}}', '{"generator": 3}'):
        (generator.parent / "run.json").write_text(text)
        assert read_generator(generator.parent)[1]["t_init"] == 79.0


def test_a_generator_of_nan_is_refused(tmp_path: Path) -> None:
    save_state(tmp_path / "generator", {"out.weight": torch.tensor([1.0, float("nan")])}, {"t_init": 80.0})
    with pytest.raises(UserError, match=r"found numbers in out\.weight that are not finite"):
        read_generator(tmp_path / "generator")


# -------------------------------------------------------------------------------------------- ranks, signals, folders


def test_ranks_that_differ_are_named() -> None:
    theirs = [{"training.seed": 0, "version": "1"}, {"training.seed": 0, "version": "1"}, {"training.seed": 5}]
    with (
        mock.patch.object(distributed, "world_size", lambda: 3),
        mock.patch.object(distributed, "gather_objects", lambda _: theirs),
        pytest.raises(UserError, match=r"training\.seed: found 5 on rank 2, expected 0 as on rank 0"),
    ):
        distributed.require_agreement(theirs[0])
    distributed.require_agreement(theirs[0])


@pytest.fixture
def default_hangup() -> Iterator[None]:
    """The usual reaction to SIGHUP, also where the tests themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("default_hangup")
def test_a_closed_terminal_is_a_wish_to_stop() -> None:
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGHUP)
        assert signals.received == signal.SIGHUP


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_outside_the_loop_ends_as_ctrl_c_does(number: signal.Signals) -> None:
    before = {s: signal.signal(s, signal.SIG_DFL) for s in (signal.SIGHUP, signal.SIGTERM)}
    try:
        interrupt_on_signals()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        interrupt_on_signals()
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
        assert signals.received is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_removed_folder_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils.tensorboard import SummaryWriter

    tracebacks: list[object] = []
    monkeypatch.setattr(threading, "excepthook", tracebacks.append)
    monkeypatch.setattr(tracking, "open_board", lambda folder, step: SummaryWriter(str(folder), flush_secs=0))
    tracker = Tracker(tmp_path / "run", 0)
    worker = next(thread for thread in threading.enumerate() if type(thread).__module__.startswith("tensorboard."))
    tracker.log(1, {"loss": 1.0})
    shutil.rmtree(tmp_path / "run")
    with contextlib.suppress(OSError):  # its thread may have failed already
        tracker.board.add_scalar("loss", 2.0, 2)
    worker.join(timeout=10)
    assert not worker.is_alive() and not tracebacks
    with pytest.raises(UserError, match="folder was removed or replaced while it was at work"):
        tracker.log(3, {"loss": 1.0})
    tracker.close()


def test_a_failure_of_the_board_is_one_line(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path / "run", 0)
    tracker.board = mock.Mock()
    tracker.board.add_scalar.side_effect = OSError(28, "No space left on device", b"/run/events")
    with pytest.raises(UserError, match=r"run: cannot be written \(No space left on device\)"):
        tracker.log(1, {"loss": 1.0})
    tracker.close()
    assert describe_os_error(OSError(5, "Input/output error", b"/run/events")).startswith("/run/events: Input")


def test_a_folder_removed_at_the_very_end_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="folder was removed while it was at work"):
        mark_finished(tmp_path, mock.Mock())
