"""A run's folder: opened, resumed, refused."""

import json
from pathlib import Path

import pytest
import torch

from unistep.api.runs import environment, load_run_recipe, open_run, record, record_start
from unistep.errors import UserError
from unistep.recipes import load_recipe


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


def test_the_description_may_change(tmp_path: Path) -> None:
    open_run(load_recipe("gaussians"), tmp_path)
    open_run(load_recipe("gaussians", ["about=in other words"]), tmp_path)


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


def test_the_environment_is_plain_json() -> None:
    assert json.loads(json.dumps(environment(torch.device("cpu"))))["unistep"]
