"""A run's folder: opened, resumed, refused."""

import json
from pathlib import Path

import pytest
import torch

from unistep.errors import UserError
from unistep.recipes import load_recipe
from unistep.run.folder import environment, load_run_recipe, open_run, record, record_start
from unistep.run.sample import draws_from


def test_a_run_keeps_its_recipe_as_resolved(tmp_path: Path) -> None:
    recipe = load_recipe("gaussians", ["training.steps=3"])
    folder = open_run(recipe, tmp_path / "run")
    assert load_run_recipe(folder) == recipe
    assert open_run(recipe, tmp_path / "run") == folder


def test_another_recipe_does_not_resume_a_run(tmp_path: Path) -> None:
    open_run(load_recipe("gaussians"), tmp_path)
    (tmp_path / "checkpoints" / "step-0000001").mkdir(parents=True)
    steps = load_recipe("gaussians").training.steps
    with pytest.raises(UserError, match=rf"training\.steps: found 3, expected {steps} as in .*recipe\.yaml; .*--out"):
        open_run(load_recipe("gaussians", ["training.steps=3"]), tmp_path)


def test_as_long_as_nothing_is_learnt_the_recipe_may_be_mended(tmp_path: Path) -> None:
    open_run(load_recipe("gaussians"), tmp_path)
    mended = load_recipe("gaussians", ["training.steps=3"])
    open_run(mended, tmp_path)
    assert load_run_recipe(tmp_path) == mended


@pytest.mark.parametrize(
    "free",
    ["about=in other words", "name=renamed", "training.log_every=7", "training.checkpoint.every_minutes=1",
     "fit.training.log_every=7", "fit.training.preview_every=7", "fit.training.evaluate_every=7",
     "fit.training.checkpoint={every_steps: 5, keep: 3}", "fit.training.device=cpu", "fit.max_error=0.5",
     "pairs.path=elsewhere", "generator.weights=raw", "evaluation.samples=5000"],
)  # fmt: skip
def test_what_does_not_change_the_training_may_change(free: str, tmp_path: Path) -> None:
    open_run(load_recipe("gaussians"), tmp_path)
    (tmp_path / "checkpoints" / "step-0000001").mkdir(parents=True)
    changed = load_recipe("gaussians", [free])
    open_run(changed, tmp_path)
    assert load_run_recipe(tmp_path) == changed != load_recipe("gaussians")


@pytest.mark.parametrize("bound", ["fit.training.seed=1", "fit.training.steps=7", "fit.samples=7", "pairs.count=7"])
def test_what_changes_the_training_may_not(bound: str, tmp_path: Path) -> None:
    open_run(load_recipe("gaussians"), tmp_path)
    (tmp_path / "checkpoints" / "step-0000001").mkdir(parents=True)
    with pytest.raises(UserError, match=rf"^{bound.split('=')[0]}: found {bound.split('=')[1]}, expected"):
        open_run(load_recipe("gaussians", [bound]), tmp_path)


def test_what_killed_writers_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    open_run(load_recipe("gaussians"), tmp_path)
    left = [tmp_path / ".health.json.4711.tmp", tmp_path / "previews" / ".step-0000001.png.4711.tmp"]
    kept = [tmp_path / ".notes.tmp", tmp_path / "pairs" / ".seeds-000000000000.safetensors.4711.tmp"]
    for file in left + kept:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"half")
    (tmp_path / ".generator.4711.tmp").mkdir()  # a folder: its own writer clears it up
    open_run(load_recipe("gaussians"), tmp_path)
    assert [file.exists() for file in left + kept] == [False, False, True, True]
    assert (tmp_path / ".generator.4711.tmp").is_dir()


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match=r"found thesis\.tex but no recipe\.yaml"):
        open_run(load_recipe("gaussians"), tmp_path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="found a file, expected a folder"):
        open_run(load_recipe("gaussians"), tmp_path / "run")


def test_run_json_collects_starts_and_facts(tmp_path: Path) -> None:
    record_start(tmp_path, torch.device("cpu"))
    record(tmp_path, teacher={"sha256": "abc"})
    record_start(tmp_path, torch.device("cpu"))
    facts = json.loads((tmp_path / "run.json").read_text())
    assert len(facts["starts"]) == 2
    assert facts["teacher"] == {"sha256": "abc"}
    assert facts["starts"][0]["torch"] == torch.__version__


@pytest.mark.parametrize("content", [b"[]", b"7", b"\xff\xfe\x00", b"{", b'{"starts": 5}'])
def test_a_record_that_is_none_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(UserError, match=r"run\.json: .*; delete this one file, it is only a record"):
        record_start(tmp_path, torch.device("cpu"))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\xff\xfe\x00", "found a file that is no text"), (b"- a", "found list, expected a mapping")],
)
def test_a_runs_recipe_that_is_none_is_refused_in_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(content)
    with pytest.raises(UserError, match=rf"recipe\.yaml: {message}"):
        load_run_recipe(tmp_path)


def test_a_binary_configuration_is_no_generators(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"config\.json: no readable JSON"):
        draws_from(tmp_path, torch.device("cpu"))


def test_the_environment_is_plain_json() -> None:
    assert json.loads(json.dumps(environment(torch.device("cpu"))))["unistep"]
