"""Whatever takes long says how far it is: every stage of a run, and none of them when it is to be quiet."""

from pathlib import Path
from typing import Any

import pytest
from tiny_recipes import NETWORK

import unistep
from unistep.io import progress

TEACH: dict[str, Any] = {
    "kind": "teach", "name": "mine", "about": "", "data": {"kind": "digits", "limit": 400}, "network": NETWORK,
    "training": {"steps": 1, "batch": 4, "precision": "fp32", "device": "cpu"},
    "evaluation": {"judge": "train", "judge_steps": 4, "samples_during_training": 140},
}  # fmt: skip


@pytest.fixture(autouse=True)
def all_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stage takes long enough, and every line is due."""
    monkeypatch.setattr(progress, "SHORT_SECONDS", 0.0)
    monkeypatch.setattr(progress, "QUIET_SECONDS", -1.0)


def test_every_long_stage_shows_its_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = unistep.teach(TEACH, out=tmp_path / "teacher", device="cpu")
    told = capsys.readouterr().err
    assert "training a judge 3/4" in told and "training a perceptual network 4/4" in told
    recipe = {
        "name": "mine", "kind": "distill", "teacher": {"load": str(run)},
        "pairs": {"count": 8, "tile": 8, "solver": {"name": "euler", "num_steps": 1}},
        "method": {"name": "dmd", "regression": "l2"},
        "training": {"steps": 1, "batch": 4, "device": "cpu", "precision": "fp32", "evaluate_every": 1},
        "evaluation": {"judge": str(run / "judge"), "samples": 140, "solver": {"name": "euler", "num_steps": 1},
                       "samples_during_training": 140},
    }  # fmt: skip
    recipe["teacher"]["certify"] = False  # type: ignore[index]
    student = unistep.distill(recipe, out=tmp_path / "student")
    told = capsys.readouterr().err
    for stage in ("teacher 140/140", "one-step generator 140/140", "figures of one-step generator", "timing teacher",
                  "comparing averaged and last weights"):  # fmt: skip
        assert stage in told
    unistep.sample(student, num=150)
    assert "sampling 150/150" in capsys.readouterr().err


def test_none_is_shown_when_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = unistep.teach(TEACH, out=tmp_path / "teacher", device="cpu", quiet=True)
    unistep.sample(run / "teacher", num=2, quiet=True)
    assert capsys.readouterr() == ("", "")
