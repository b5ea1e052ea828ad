"""kill -9 at random moments, then the same command again: the bytes of the undisturbed run."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType

import pytest

COUNT = 160  # twenty shards

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


class Server:
    """A process that starts makers of pairs, see `tiny.serve`."""

    def __init__(self, process: "subprocess.Popen[str]"):
        assert process.stdin is not None
        assert process.stdout is not None
        self.stdin, self.stdout = process.stdin, process.stdout

    def start(self, out: Path, rank: int = 0, world: int = 1) -> int:
        """Starts a maker; its process id."""
        self.stdin.write(f"{out} {COUNT} {rank} {world}\n")
        self.stdin.flush()
        return int(self.stdout.readline())

    def status(self) -> int:
        """Waits for the maker; 0 = it came to its end."""
        self.stdin.write("\n")
        self.stdin.flush()
        return int(self.stdout.readline())


@contextmanager
def server(tiny: ModuleType) -> Iterator[Server]:
    command, environment = [sys.executable, "-W", "ignore", tiny.__file__], {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        yield Server(process)


def kill_often(tiny: ModuleType, folder: Path, times: int, seed: int) -> int:
    """Kills `times` makers, each going on where the last was cut; every fourth time one finishes and is compared.

    Returns:
        How many were cut before their end.
    """
    started = time.perf_counter()
    tiny.make(folder / "undisturbed", COUNT)
    expected, duration = tiny.contents(folder / "undisturbed"), time.perf_counter() - started
    moments, cut = random.Random(seed), 0
    with server(tiny) as makers:
        for run in range(times):
            out = folder / f"killed-{run // 4}"
            maker = makers.start(out)
            time.sleep(moments.uniform(0, duration / 2))
            os.kill(maker, signal.SIGKILL)
            cut += makers.status() != 0
            if run % 4 == 3 or run == times - 1:
                tiny.make(out, COUNT)
                assert tiny.contents(out) == expected
    return cut


def test_a_few_kills_change_nothing(tiny: ModuleType, tmp_path: Path) -> None:
    assert kill_often(tiny, tmp_path, times=4, seed=1) >= 1


@pytest.mark.slow
def test_twenty_kills_change_nothing(tiny: ModuleType, tmp_path: Path) -> None:
    assert kill_often(tiny, tmp_path, times=20, seed=2) >= 10


@pytest.mark.slow
def test_ranks_that_run_at_once_need_no_lock(tiny: ModuleType, tmp_path: Path) -> None:
    tiny.make(tmp_path / "one", COUNT)
    with ExitStack() as stack:
        ranks = [stack.enter_context(server(tiny)) for _ in range(3)]
        for attempt in range(5):
            for rank, makers in enumerate(ranks):
                makers.start(tmp_path / f"ranks-{attempt}", rank, len(ranks))
            assert [makers.status() for makers in ranks] == [0, 0, 0]
            assert tiny.contents(tmp_path / f"ranks-{attempt}") == tiny.contents(tmp_path / "one")
