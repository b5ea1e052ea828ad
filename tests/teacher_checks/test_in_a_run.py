"""A run certifies its teacher before anything is learnt from it, once, and keeps the certificate."""

import json
from pathlib import Path

import pytest
import torch
from misread import SHAPE, Foreign, teacher_of
from typer.testing import CliRunner

import unistep
from unistep.cli import app
from unistep.diffusion.process import DiscreteVPProcess, EDMProcess
from unistep.errors import UserError
from unistep.reports.html import write_report
from unistep.teacher_checks import Certificate
from unistep.teachers.module import teacher_from_module

RECIPE = """
name: pictures
kind: distill
pairs: {count: 4, solver: {name: ddim, num_steps: 2}, tile: 4}
method: {name: dmd, regression: l2}
training: {steps: 1, batch: 2}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_a_good_teacher_is_certified_once(recipe: Path, tmp_path: Path) -> None:
    teacher, run = teacher_of(EDMProcess(), "x0"), tmp_path / "run"
    unistep.make_pairs(recipe, teacher=teacher, out=run, quiet=True)
    certificate = Certificate.load(run / "certificate.json")
    assert certificate.teacher == teacher.sha256 and not certificate.failed
    written = (run / "certificate.json").stat().st_mtime_ns
    unistep.make_pairs(recipe, teacher=teacher, out=run, quiet=True)
    assert (run / "certificate.json").stat().st_mtime_ns == written
    assert "is read as it was trained" in write_report(run).read_text()


def test_a_misread_teacher_stops_the_run_before_its_pairs(recipe: Path, tmp_path: Path) -> None:
    misread = teacher_of(DiscreteVPProcess.linear(), "eps", as_kind="v")
    run = tmp_path / "run"
    with pytest.raises(UserError, match=r"^teacher foreign: .*; teacher.certify=false goes on regardless$"):
        unistep.distill(recipe, teacher=misread, out=run, quiet=True)
    assert Certificate.load(run / "certificate.json").failed
    assert not (run / "pairs").exists()
    assert "failed its certification" in write_report(run).read_text()
    unistep.make_pairs(recipe, teacher=misread, out=run, overrides=["teacher.certify=false"], quiet=True)


def test_another_teacher_is_certified_anew(recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text(RECIPE)
    (run / "certificate.json").write_text(
        json.dumps({"format": "unistep-certificate/1", "teacher": "0", "source": "", "checks": [], "samples": 1})
    )
    teacher = teacher_of(EDMProcess(), "v")
    unistep.make_pairs(recipe, teacher=teacher, out=run, quiet=True)
    assert Certificate.load(run / "certificate.json").teacher == teacher.sha256


def test_the_verb_tells_good_from_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = CliRunner()
    good = runner.invoke(app, ["certify", "gaussians:ring8", "--out", str(tmp_path / "c.json")])
    assert good.exit_code == 0 and "passed" in good.stdout
    assert not Certificate.load(tmp_path / "c.json").failed
    process = EDMProcess()
    wrong = teacher_from_module(Foreign(process, "eps"), process, "x0", SHAPE, num_classes=4, source="wrong")
    monkeypatch.setattr("unistep.run.certify.load_teacher", lambda spec: wrong)
    bad = runner.invoke(app, ["certify", "whatever"])
    assert bad.exit_code == 2 and "FAILED" in bad.stdout


def test_a_python_teacher_is_certified_without_a_run() -> None:
    torch.manual_seed(0)
    certificate = unistep.certify(teacher_of(EDMProcess(), "x0"), quiet=True)
    assert certificate.samples == 187 and not certificate.failed
