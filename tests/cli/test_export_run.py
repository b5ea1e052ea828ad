"""`unistep export` on a run: what the run says is in contract and card; a checkpoint says less."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import unistep
from unistep.cli import app

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
