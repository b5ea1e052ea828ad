"""A checkpoint of a training is opened like its result: best, last or any that is kept, finished or not."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import unistep
from unistep.cli import app
from unistep.errors import UserError
from unistep.run.checkpoints import export_checkpoint
from unistep.training.checkpoint import Checkpoints

POINTS = [
    "fit.training={steps: 2, batch: 16}", "fit.samples=64", "fit.max_error=100", "training.steps=6",
    "training.batch=16", "training.preview_every=null", "training.evaluate_every=1",
    "training.checkpoint={every_steps: 1, keep: 2}", "evaluation.samples=128",
    "evaluation.samples_during_training=100", "evaluation.solver={name: heun, num_steps: 2}", "generator.weights=ema",
]  # fmt: skip
DIGITS = [
    "network={type: unet, img_resolution: 8, img_channels: 1, model_channels: 8, channel_mult: [1], num_blocks: 1, "
    "attn_resolutions: [], label_dim: 10}", "training.steps=2", "training.batch=4", "training.preview_every=null",
    "evaluation.judge=null", "training.checkpoint={every_steps: 1}",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose averages were evaluated after each of six steps."""
    folder = tmp_path_factory.mktemp("points") / "run"
    return unistep.distill("gaussians", overrides=POINTS, out=folder, device="cpu", quiet=True)


def files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("model.safetensors", "config.json")}


def scores(run: Path) -> dict[int, float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["evaluation/score"] for line in lines if "evaluation/score" in line}


def test_the_last_checkpoint_is_what_the_run_exports(run: Path) -> None:
    exported = export_checkpoint(run, "last")
    assert exported == run / "generator-step-0000006" == export_checkpoint(run, "step-6")
    assert files(exported) == files(run / "generator")


def test_the_best_one_is_that_of_the_best_evaluation(run: Path, tmp_path: Path) -> None:
    found = scores(run)
    best = min(found, key=found.__getitem__)
    exported = export_checkpoint(run, "best")
    assert exported.name == f"generator-step-{best:07d}"
    (saved,) = (run / "checkpoints" / f"step-{best:07d}").glob("*.safetensors")
    averages = {name: tensor for name, tensor in load_file(saved).items() if name.startswith("ema.denoiser.")}
    weights = load_file(exported / "model.safetensors")
    assert len(averages) > 4
    assert all(torch.equal(weights[name.removeprefix("ema.denoiser.")], value) for name, value in averages.items())


def test_a_run_that_never_ended_has_its_checkpoints(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "generator")
    picture = unistep.sample(tmp_path / "run", num=5, checkpoint="last", device="cpu")
    assert picture.parent == tmp_path / "run" / "samples" / "step-0000006"
    expected = unistep.sample(run, num=5, out=tmp_path / "expected", device="cpu")
    assert picture.read_bytes() == expected.read_bytes()
    with pytest.raises(UserError, match="found a run without a finished model"):
        unistep.sample(tmp_path / "run", num=5, device="cpu")


def test_a_checkpoint_has_a_row_beside_the_generator(run: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", str(run), "--checkpoint", "last", "--device", "cpu", "-q"])
    assert (result.exit_code, result.output) == (0, "")
    rows = {row["name"]: row for row in json.loads((run / "evaluation.json").read_text())["rows"]}
    assert list(rows)[-2:] == ["generator step-0000006", "one-step generator"]
    assert rows["generator step-0000006"]["figures"] == rows["one-step generator"]["figures"]


def test_without_an_average_the_last_weights_are_taken(tmp_path: Path) -> None:
    raw = unistep.distill("gaussians", overrides=[*POINTS, "training.ema=null"], out=tmp_path, device="cpu", quiet=True)
    assert files(export_checkpoint(raw, "last")) == files(raw / "generator")


def test_a_teachers_checkpoints_too(tmp_path: Path) -> None:
    run = unistep.teach("digits-teacher", overrides=DIGITS, out=tmp_path / "run", device="cpu", quiet=True)
    exported = export_checkpoint(run, "last")
    assert exported == run / "teacher-step-0000002" and files(exported) == files(run / "teacher")
    assert files(export_checkpoint(run, "step-1")) != files(run / "teacher")
    with pytest.raises(UserError, match="^checkpoint: found best, but nothing was evaluated during the training"):
        export_checkpoint(run, "best")


@pytest.mark.parametrize("which", ["step-3", "5", "first", "step-"])
def test_what_is_not_kept_is_refused_and_what_is_is_named(which: str, run: Path) -> None:
    kept = Checkpoints(run / "checkpoints").steps()
    assert 3 not in kept and kept[-2:] == [5, 6]
    with pytest.raises(UserError, match=rf"^checkpoint: found '{which}', expected best, .* kept: (.*)step-5, step-6$"):
        export_checkpoint(run, which)


def test_a_folder_without_checkpoints_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found no checkpoint, expected those of a run's training"):
        unistep.sample(tmp_path, checkpoint="best", device="cpu")


def test_a_checkpoint_that_does_not_know_its_network_is_refused(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "checkpoints", tmp_path / "checkpoints")
    manifest = tmp_path / "checkpoints" / "step-0000006" / "manifest.json"
    known = json.loads(manifest.read_text())
    del known["record"]["averaged"]
    manifest.write_text(json.dumps(known))
    with pytest.raises(UserError, match=r"step-0000006: found no description of its network"):
        export_checkpoint(tmp_path, "last")
