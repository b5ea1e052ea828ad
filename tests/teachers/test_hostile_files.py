"""Hostile checkpoints end in one line: nothing is run, memory and time stay bounded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hostile import calls, endless, hostile_files, with_payload, zip_bomb

from unistep import UserError, convert

SCRIPT = Path(__file__).with_name("refuse_all.py")
LEAST = {"calls": 100, "opcodes": 35, "greedy": 25, "liars": 55, "records": 90}


def test_each_is_refused_in_one_line_and_nothing_is_run(tmp_path: Path) -> None:
    groups = hostile_files(f"touch {tmp_path / 'canary'}")
    assert not {name: len(files) for name, files in groups.items() if len(files) < LEAST[name]}
    require_refusals(tmp_path, [entry for files in groups.values() for entry in files.items()])


@pytest.mark.slow
def test_endless_files_are_refused_in_bounded_time_and_memory(tmp_path: Path) -> None:
    require_refusals(tmp_path, list(endless().items()))


def require_refusals(tmp_path: Path, files: list[tuple[str, bytes]]) -> None:
    """Converts the files in a process with a memory limit, and looks at what it said and did."""
    folder, report_file = tmp_path / "files", tmp_path / "report.json"
    folder.mkdir()
    for i, (_, content) in enumerate(files):
        (folder / f"{i:03}.pkl").write_bytes(content)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), str(folder), str(report_file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(report_file.read_text())
    assert len(report["files"]) == len(files)
    assert not (tmp_path / "canary").exists() and not (folder / "out").exists()
    for (name, _), (stem, found) in zip(files, report["files"].items(), strict=True):
        said = found["said"]
        assert said.startswith((f"{folder / stem}.pkl", f"{stem}.pkl")), (name, said)
        assert said.isprintable() and said.isascii() and len(said) < 500, (name, said)
        assert not found["events"] and found["seconds"] < 30, (name, found)
    assert report["grown"] < 300 * 2**20


def test_a_refusal_names_what_was_asked_for(tmp_path: Path) -> None:
    for name, content in calls("touch canary").items():
        if name.startswith("call "):
            (tmp_path / "x.pkl").write_bytes(content)
            with pytest.raises(UserError, match=f"asks for {name.split()[1]}, .*nothing in it was run"):
                convert(tmp_path / "x.pkl", out=tmp_path / "out")
    (tmp_path / "x.pkl").write_bytes(with_payload(zip_bomb(2**20)))
    with pytest.raises(UserError, match="zip archive"):
        convert(tmp_path / "x.pkl", out=tmp_path / "out")
