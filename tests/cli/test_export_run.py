"""`unistep export` on a run: what the run says is in contract and card; a checkpoint says less."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import unistep
from unistep.cli import app

sys.path.insert(0, str(Path(__file__).parents[1] / "package"))
from test_locking import other_process

SMALL = [
    "fit.training={steps: 2, batch: 16}", "fit.samples=64", "fit.max_error=100", "training.steps=2",
    "training.batch=16", "training.preview_every=null", "training.checkpoint={every_steps: 1, keep: 2}",
    "evaluation.samples=128", "evaluation.solver={name: heun, num_steps: 2}", "generator.weights=raw",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "run"
    return unistep.distill("gaussians", overrides=SMALL, out=folder, device="cpu", quiet=True)


def test_contract_and_card_say_what_the_run_says(run: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(run), "--to", "safetensors"])
    assert result.exit_code == 0, result.output
    folder = run / "export-safetensors"
    assert result.stdout.strip() == str(folder) and "samples differ by" in result.stderr
    contract = json.loads((folder / "sampling_contract.json").read_text())
    teacher = json.loads((run / "run.json").read_text())["teacher"]
    assert contract["teacher"] == teacher and contract["weights"] == "raw" and contract["guidance"]["learnt"] == 1.0
    assert contract["licence"] == "unknown: see the teacher" and contract["verified"]["samples"] <= 1e-4
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: unknown\n") and teacher["sha256"] in card
    assert "| one-step generator |" in card and "128 samples per row" in card and "seeds from 1000000" in card


def test_a_checkpoint_that_was_not_evaluated_says_so(run: Path, tmp_path: Path) -> None:
    folder = unistep.export_generator(run, to="safetensors", checkpoint="step-1", out=tmp_path / "export")
    assert "These weights have not been evaluated." in (folder / "README.md").read_text()
    assert json.loads((folder / "sampling_contract.json").read_text())["weights"] == "ema"


def test_a_refusal_is_one_line(run: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(run), "--to", "diffusers"])
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: gaussians: its network is none of diffusers' classes")
    assert not (run / "export-diffusers").exists() and not list(run.glob(".export*"))


@pytest.mark.slow
def test_two_processes_export_the_same_bytes(run: Path, tmp_path: Path) -> None:
    found = []
    for seed in ("1", "2"):
        place = tmp_path / seed / "export"
        command = [sys.executable, "-m", "unistep", "export", str(run), "--to", "safetensors", "--out", str(place)]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": seed})
        found.append({p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in place.iterdir()})
    assert found[0] == found[1] and "generator.safetensors" in found[0]


def test_writing_where_another_process_is_at_work_is_refused(run: Path) -> None:
    places = {"evaluate": (run, "inside"), "sample": (run / "samples", "inside")}
    places["export"] = (run / "export-safetensors", "beside")
    for verb, (folder, where) in places.items():
        folder.mkdir(exist_ok=True)
        with other_process(folder, where):
            result = CliRunner().invoke(app, [verb, str(run), *(["--to", "safetensors"] if verb == "export" else [])])
        assert result.exit_code == 2 and result.stderr.count("error: ") == 1, result.output
        assert f"{folder}: found another process at work there (pid " in result.stderr


def test_a_generator_that_was_changed_is_refused_by_every_verb(run: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(run, tmp_path / "run", symlinks=True)
    config = changed / "generator" / "config.json"
    config.write_text(config.read_text() + "\n")
    for verb in ("sample", "evaluate", "export"):
        arguments = [verb, str(changed), *(["--to", "safetensors"] if verb == "export" else [])]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2 and result.stderr.count("error: ") == 1, result.output
        assert "as in" in result.stderr and "it was changed after its training" in " ".join(result.stderr.split())


@pytest.mark.parametrize("verb", ["pairs", "distill"])
def test_a_changed_generator_is_no_teacher(verb: str, run: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(run, tmp_path / "run", symlinks=True)
    config = changed / "generator" / "config.json"
    config.write_text(config.read_text() + "\n")
    named = ["--set", f"teacher.load={changed / 'generator'}", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [verb, "gaussians", *named])
    assert result.exit_code == 2 and "it was changed after its training" in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


def test_images_without_anything_to_measure_them_by_are_not_sampled(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unistep.run.evaluate.point_reference", lambda *_: None)  # as for a teacher of images
    monkeypatch.setattr("unistep.run.evaluate.evaluate_run", lambda *_: pytest.fail("samples"))
    result = CliRunner().invoke(app, ["evaluate", str(run)])
    assert result.exit_code == 2 and result.stderr.startswith(
        "error: evaluation.judge: found nothing, expected embedded"
    )
