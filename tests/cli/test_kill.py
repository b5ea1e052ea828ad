"""kill -9 at random moments of `pairs`, `teach` and `distill`, then the same command again: nothing has changed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny_recipes
import yaml

KILLS, REAL_KILLS = 20, 2  # per verb: of forked children, and of `python -m unistep`
SAVING = 5  # of the forked ones: so many wait until something is being written
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]

# ---------------------------------------------------------------------------------------------------------- recipes

SOLVER = {"name": "heun", "num_steps": 2}
TRAINING = {
    "steps": 40, "batch": 8, "seed": 3, "ema": {"half_life": 10}, "checkpoint": {"every_steps": 2}, "log_every": 5,
    "optim": {"default": {"lr": 1e-3, "schedule": "cosine", "warmup": 5}}, "evaluate_every": 20, "preview_every": 20,
}  # fmt: skip
TEACH = {
    **tiny_recipes.TEACH,
    "network": {**tiny_recipes.NETWORK, "dropout": 0.1},
    "training": TRAINING,
    "evaluation": {"judge": "train", "judge_steps": 5, "samples_during_training": 130, "solver": SOLVER},
}  # fmt: skip
DISTILL = {
    "kind": "distill",
    "about": "a tiny generator",
    "pairs": {"count": 96, "tile": 8, "solver": {"name": "heun", "num_steps": 4}},
    "method": {"lambda_reg": 1, "regression": "l2", "fake_score_from_step": 4, "dm_from_step": 8},
    "training": TRAINING,
    "evaluation": {"samples": 1000, "samples_during_training": 130, "solver": SOLVER},
}


def write_recipe(path: Path, recipe: dict) -> Path:
    path.write_text(yaml.safe_dump(recipe))
    return path


# ---------------------------------------------------------------------------------------------- starting and killing


class Verbs:
    """A process that starts verbs, see `verb_server`."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path):
        assert process.stdin is not None
        assert process.stdout is not None
        self.stdin, self.stdout, self.log = process.stdin, process.stdout, log
        assert self.stdout.readline() == "ready\n"

    def start(self, *arguments: str | Path) -> int:
        """Starts `unistep ARGUMENTS`; its process id."""
        self.stdin.write(json.dumps([str(self.log), [str(a) for a in arguments]]) + "\n")
        self.stdin.flush()
        return int(self.stdout.readline())

    def status(self) -> int:
        """Waits for the verb: 0, -9 if it was killed, else the exit code."""
        self.stdin.write("\n")
        self.stdin.flush()
        return os.waitstatus_to_exitcode(int(self.stdout.readline()))

    def run(self, *arguments: str | Path) -> None:
        """Runs a verb to its end."""
        self.start(*arguments)
        assert self.status() == 0, self.log.read_text()[-2000:]


@contextmanager
def serving(log: Path) -> Iterator[Verbs]:
    command, pipe = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("verb_server.py"))], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=ENVIRONMENT) as process:
        yield Verbs(process, log)


@pytest.fixture(scope="module")
def verbs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verbs]:
    with serving(tmp_path_factory.mktemp("log") / "log.txt") as server:
        yield server


def is_writing(folder: Path) -> bool:
    """Whether a draft of a checkpoint, a shard, an export or any other file stands there."""
    return any(
        name.startswith(".")
        for place in (folder, folder / "checkpoints", folder / "pairs", folder / "previews", folder / "judge")
        if place.is_dir()
        for name in os.listdir(place)
    )


def kill_at(process: int, seconds: float, folder: Path | None = None) -> None:
    """Kills after some seconds; with a folder, as soon after that as something is being written there."""
    time.sleep(seconds)
    deadline = time.monotonic() + 1.0
    while folder is not None and not is_writing(folder) and time.monotonic() < deadline:
        pass
    os.kill(process, signal.SIGKILL)


# --------------------------------------------------------------------------------------------------------- comparing


def made(folder: Path) -> dict[str, bytes | str]:
    """What a run is for, byte for byte, and its metrics without the clock's."""
    files = [file for part in ("pairs", "teacher", "generator") for file in sorted((folder / part).glob("[!.]*"))]
    found: dict[str, bytes | str] = {str(file.relative_to(folder)): file.read_bytes() for file in files}
    if (folder / "metrics.jsonl").exists():
        lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        clock = {"seconds_per_step", "images_per_second"}
        found["metrics"] = "\n".join(str({k: v for k, v in line.items() if k not in clock}) for line in lines)
    return found


def require_same(folder: Path, expected: dict[str, bytes | str]) -> None:
    found = made(folder)
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    left = [path.name for path in (folder / "checkpoints").glob(".*")] + [p.name for p in (folder / "pairs").glob(".*")]
    assert set(left) <= {".lock"}


@dataclass
class Tally:
    """What the kills met."""

    cut: int = 0
    attempts: int = 0
    runs: int = 0
    writing: int = 0


def kill_often(verbs: Verbs, verb: str, recipe: Path, folder: Path, seed: int) -> tuple[Tally, dict[str, bytes | str]]:
    """Kills a verb `KILLS` times, each going on where the last was cut; a run that ends is compared, the next begins.

    Returns:
        The tally, and what the undisturbed run made.
    """
    started = time.perf_counter()
    verbs.run(verb, recipe, "--out", folder / "undisturbed", "--quiet")
    duration, expected = time.perf_counter() - started, made(folder / "undisturbed")
    moments, tally, out = random.Random(seed), Tally(), folder / "killed-0"
    while tally.cut < KILLS:
        saving = tally.cut % (KILLS // SAVING) == 0
        child = verbs.start(verb, recipe, "--out", out, "--quiet")
        kill_at(child, moments.uniform(0, 0.8 * duration), out if saving else None)
        status, tally.attempts = verbs.status(), tally.attempts + 1
        assert status in (0, -signal.SIGKILL), verbs.log.read_text()[-2000:]
        if status:
            tally.cut, tally.writing = tally.cut + 1, tally.writing + (out.is_dir() and is_writing(out))
        else:
            require_same(out, expected)
            tally.runs += 1
            out = folder / f"killed-{tally.runs}"
    verbs.run(verb, recipe, "--out", out, "--quiet")
    require_same(out, expected)
    tally.runs += 1
    return tally, expected


def kill_for_real(verbs: Verbs, verb: str, recipe: Path, out: Path, seed: int, begun: Callable[[], bool]) -> None:
    """Kills `python -m unistep` itself `REAL_KILLS` times, at random moments after it has begun to work."""
    moments = random.Random(seed)
    for _ in range(REAL_KILLS):
        command = [sys.executable, "-m", "unistep", verb, str(recipe), "--out", str(out), "--quiet"]
        with subprocess.Popen(command, env=ENVIRONMENT) as process:
            while not begun() and process.poll() is None:
                time.sleep(0.01)
            time.sleep(moments.uniform(0, 0.5))
            process.kill()
        assert process.returncode == -signal.SIGKILL
    verbs.run(verb, recipe, "--out", out, "--quiet")


def disturbed(verbs: Verbs, verb: str, recipe: Path, folder: Path, seed: int, first: str) -> None:
    """Both kinds of kills, and a line of figures (shown by `pytest -s`); `first` is a file that shows it at work."""
    started = time.perf_counter()
    tally, expected = kill_often(verbs, verb, recipe, folder, seed)
    real = folder / "real"
    kill_for_real(verbs, verb, recipe, real, seed, lambda: any(real.glob(first)))
    require_same(real, expected)
    assert tally.cut == KILLS
    print(f"\n{verb}: {tally}, {len(expected)} files compared, {time.perf_counter() - started:.0f} s")


# ------------------------------------------------------------------------------------------------------------- tests


@pytest.fixture(scope="module")
def teacher(verbs: Verbs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run of `teach`."""
    folder = tmp_path_factory.mktemp("teacher")
    verbs.run("teach", write_recipe(folder / "tiny.yaml", TEACH), "--out", folder / "run", "--quiet")
    return folder / "run"


def distill_recipe(folder: Path, teacher: Path) -> Path:
    evaluation = {**DISTILL["evaluation"], "judge": str(teacher / "judge")}
    recipe = {**DISTILL, "teacher": {"load": str(teacher), "certify": False}, "evaluation": evaluation}
    return write_recipe(folder / "tiny.yaml", recipe)


def test_pairs(verbs: Verbs, teacher: Path, tmp_path: Path) -> None:
    disturbed(verbs, "pairs", distill_recipe(tmp_path, teacher), tmp_path, 1, "pairs/seeds-*")


def test_teach(verbs: Verbs, tmp_path: Path) -> None:
    disturbed(verbs, "teach", write_recipe(tmp_path / "tiny.yaml", TEACH), tmp_path, 2, "checkpoints/step-*")


def test_distill(verbs: Verbs, teacher: Path, tmp_path: Path) -> None:
    disturbed(verbs, "distill", distill_recipe(tmp_path, teacher), tmp_path, 3, "checkpoints/step-*")
