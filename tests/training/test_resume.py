"""Interrupted runs: bit-exact resume, kill -9, Ctrl-C, changed recipes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from stand_ins import run, stop_after

from unistep.errors import UserError


def tensors(folder: Path, step: int) -> dict[str, torch.Tensor]:
    """All tensors of a one-rank checkpoint."""
    (file,) = (folder / "checkpoints" / f"step-{step:07d}").glob("*.safetensors")
    return load_file(file)


def assert_equal_states(a: Path, b: Path, step: int) -> None:
    found, expected = tensors(a, step), tensors(b, step)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def stopped(folder: Path, step: int, **changes: object) -> None:
    """Runs until Ctrl-C arrives after `step`."""
    result = run(folder, hooks=stop_after(step), preview_every=1, **changes)
    assert (result.stopped, result.step) == ("signal", step)


def test_five_steps_and_five_more_equal_ten(tmp_path: Path) -> None:
    run(tmp_path / "whole", preview_every=1)
    stopped(tmp_path / "halves", 5)
    assert run(tmp_path / "halves", preview_every=1).step == 10
    assert_equal_states(tmp_path / "halves", tmp_path / "whole", 10)


def test_dropout_is_resumed_too(tmp_path: Path) -> None:
    run(tmp_path / "whole", dropout=0.3)
    run(tmp_path / "halves", dropout=0.3, hooks=stop_after(6), preview_every=1)
    run(tmp_path / "halves", dropout=0.3)
    assert_equal_states(tmp_path / "halves", tmp_path / "whole", 10)


def test_metrics_lines_never_repeat(tmp_path: Path) -> None:
    stopped(tmp_path, 6)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 8, "loss/fit": 1.0}\n{"step": 9, "lo')
    run(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 11))


def test_an_unfinished_run_with_other_random_numbers_is_refused(tmp_path: Path) -> None:
    stopped(tmp_path, 5)
    manifest = tmp_path / "checkpoints" / "step-0000005" / "manifest.json"
    written = json.loads(manifest.read_text())
    assert written["record"].pop("randomness") == 2  # older code wrote none
    manifest.write_text(json.dumps(written))
    with pytest.raises(UserError, match=r"step-0000005: found random numbers of version 1, expected 2: .*\(--out\)"):
        run(tmp_path)


def test_a_finished_run_with_other_random_numbers_is_left_alone(tmp_path: Path) -> None:
    run(tmp_path)
    manifest = tmp_path / "checkpoints" / "step-0000010" / "manifest.json"
    written = json.loads(manifest.read_text())
    del written["record"]["randomness"]
    manifest.write_text(json.dumps(written))
    assert run(tmp_path).stopped == "done"


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    run(tmp_path)
    before = (tmp_path / "metrics.jsonl").read_text()
    assert run(tmp_path).stopped == "done"
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_a_changed_recipe_is_refused_by_name(tmp_path: Path) -> None:
    stopped(tmp_path, 4)
    with pytest.raises(UserError, match=r"^batch: found 8, expected 16 as in .*step-0000004"):
        run(tmp_path, batch=8)


def test_where_and_how_often_may_change(tmp_path: Path) -> None:
    stopped(tmp_path, 3)
    assert run(tmp_path, log_every=3, accumulate=2, checkpoint={"every_steps": 2, "every_minutes": None}).step == 10


KILLER = """
import os, random, signal, sys, time
from pathlib import Path
from stand_ins import run
folder, kills = Path(sys.argv[1]), int(sys.argv[2])
moments = random.Random(kills)
for _ in range(kills):
    child = os.fork()
    if child == 0:
        run(folder, steps=30, checkpoint={"every_steps": 1, "every_minutes": None})
        os._exit(0)
    time.sleep(moments.uniform(0.02, 1.0))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
run(folder, steps=30, checkpoint={"every_steps": 1, "every_minutes": None})
"""


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_kill_nine_at_random_moments_changes_nothing(tmp_path: Path, kills: int) -> None:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLER, str(tmp_path / "killed"), str(kills)]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    run(tmp_path / "whole", steps=30, checkpoint={"every_steps": 1, "every_minutes": None})
    assert_equal_states(tmp_path / "killed", tmp_path / "whole", 30)
