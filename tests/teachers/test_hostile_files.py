"""Hostile checkpoints end in one line: nothing is run, memory and time stay bounded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hostile import hostile_files

SCRIPT = Path(__file__).with_name("refuse_all.py")
LEAST = {"calls": 100, "opcodes": 35, "greedy": 35, "liars": 55, "records": 75}


@pytest.mark.parametrize("group", LEAST)
def test_each_is_refused_in_one_line_and_nothing_is_run(group: str, tmp_path: Path) -> None:
    canary, folder = tmp_path / "canary", tmp_path / "files"
    folder.mkdir()
    files = hostile_files(f"touch {canary}")[group]()
    names = {f"{i:03}": name for i, name in enumerate(files)}
    for stem, content in zip(names, files.values(), strict=True):
        (folder / f"{stem}.pkl").write_bytes(content)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}
    run = [sys.executable, str(SCRIPT), str(folder), str(tmp_path / "report.json")]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((tmp_path / "report.json").read_text())
    assert len(report["files"]) == len(files) >= LEAST[group]
    assert not canary.exists() and not (folder / "out").exists()
    for stem, found in report["files"].items():
        said = found["said"]
        assert said.startswith(str(folder / f"{stem}.pkl")) or said.startswith(f"{stem}.pkl"), (names[stem], said)
        assert said.isprintable() and said.isascii() and len(said) < 500, (names[stem], said)
        assert not found["events"], (names[stem], found["events"])
        assert found["seconds"] < 60, (names[stem], found["seconds"])
    assert report["grown"] < 500 * 2**20


def test_a_refusal_names_what_was_asked_for(tmp_path: Path) -> None:
    from hostile import calls, with_payload, zip_bomb

    from unistep import UserError, convert

    for name, content in calls("touch canary").items():
        if name.startswith("call "):
            (tmp_path / "x.pkl").write_bytes(content)
            with pytest.raises(UserError, match=f"asks for {name.split()[1]}, .*nothing in it was run"):
                convert(tmp_path / "x.pkl", out=tmp_path / "out")
    (tmp_path / "x.pkl").write_bytes(with_payload(zip_bomb(2**20)))
    with pytest.raises(UserError, match="zip archive"):
        convert(tmp_path / "x.pkl", out=tmp_path / "out")
