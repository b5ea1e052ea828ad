"""One writer at a time: a second process is refused in one line, a killed one leaves nothing in the way."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from unistep.errors import UserError
from unistep.io.locking import HELD, locked

HOLDER = """
import sys, time
from pathlib import Path
from unistep.io.locking import locked
with locked(Path(sys.argv[1]), beside=sys.argv[2] == "beside"):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def other_process(folder: Path, where: str = "inside") -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of a folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder), where], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("where", ["inside", "beside"])
def test_a_second_process_is_refused_and_a_killed_one_is_not_in_the_way(tmp_path: Path, where: str) -> None:
    folder, beside = tmp_path / "run", where == "beside"
    with other_process(folder, where) as process:
        with pytest.raises(UserError, match=rf"pid {process.pid} on {socket.gethostname()}, since") as caught:
            locked(folder, beside=beside).__enter__()
        assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{folder}: found another process")
        process.send_signal(signal.SIGKILL)
        process.wait()
        with locked(folder, beside=beside):
            pass
    assert not list(tmp_path.rglob("*lock"))


def test_blocks_of_one_process_may_nest(tmp_path: Path) -> None:
    with locked(tmp_path), locked(tmp_path):
        with locked(tmp_path):
            assert [*HELD.values()] == [3]
        with pytest.raises(UserError, match="another process"):  # the inner block's end kept it
            other_descriptor(tmp_path)
    assert not HELD and not [*tmp_path.iterdir()]


def other_descriptor(folder: Path) -> None:
    """Takes the lock as another process would: by another open of the same file."""
    held = dict(HELD)
    HELD.clear()
    try:
        with locked(folder):
            pass
    finally:
        HELD.update(held)


def test_a_file_system_without_locks_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    said: list[str] = []
    with locked(tmp_path, said.append), locked(tmp_path):
        pass
    assert len(said) == 1 and "start one process at a time there" in said[0]


def test_a_file_removed_between_opening_and_locking_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, removed = fcntl.flock, []

    def late(descriptor: int, how: int) -> None:
        flock(descriptor, how)
        if not removed:
            removed.append(True)
            (tmp_path / ".lock").unlink()

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(tmp_path):
        assert (tmp_path / ".lock").exists()
        with pytest.raises(UserError, match="another process"):
            other_descriptor(tmp_path)
