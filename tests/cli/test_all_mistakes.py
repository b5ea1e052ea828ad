"""Every mistake of a recipe is told at once, one a line, and none that only follows from another."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from unistep.cli import app
from unistep.errors import Mistakes, UserError, UserErrors, rename_section
from unistep.recipes import load_recipe

BAD = """
kind: distill
extends: fashion-mnist
metod: 3
generator: {sigma_init: 2.0, u_init: 0.5}
method: {lambda_reg: much, weighting: eq9, min_fraction: 0.99}
pairs: {first_seed: 1000000}
training: {batch: 1.5, stepps: 3}
evaluation: {resize: 3, real: {kind: digits, split: test}}
"""
EXPECTED = [
    "generator: found both sigma_init and u_init, expected at most one of them; set the other to null",
    "method.lambda_reg: found 'much', expected a number",
    "method.weighting: found 'eq9', expected 'eq8', ",
    "training.batch: found 1.5, expected a whole number",
    "training.stepps: unknown key; did you mean steps? expected one of ",
    "evaluation.resize: found 3, expected greater than or equal to 8",
    "metod: unknown key; did you mean method? expected one of ",
    "method.min_fraction: found 0.99, expected less than max_fraction 0.98",
    "evaluation.real: found a value, expected nothing: judge embedded:fashion-mnist brings its own images",
    "evaluation.real.split: found test, expected nothing: train is compared with, test is the floor",
    "pairs.first_seed: found seeds 1000000..1003999, expected none of those that are judged",
]


def test_types_unknown_keys_and_checks_across_sections_are_told_in_one_pass(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    with pytest.raises(UserErrors) as caught:
        load_recipe(path)
    lines = [line.removeprefix(f"{path}: ") for line in caught.value.lines]
    assert all(found.startswith(expected) for found, expected in zip(lines, EXPECTED, strict=True)), lines
    assert str(caught.value) == "\n".join(caught.value.lines)


def test_the_command_line_prints_each_on_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    result = CliRunner().invoke(app, ["distill", str(path)], prog_name="unistep", catch_exceptions=False)
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert len(lines) == len(EXPECTED)
    assert all(line.startswith(f"error: {path}: ") for line in lines)


def test_sections_that_are_missing_are_told_beside_each_other() -> None:
    with pytest.raises(UserErrors) as caught:
        load_recipe("gaussians-knowledge", {"pairs": None, "generator.init": "x", "lora.rank": 4})
    assert [line.split(": ")[1] for line in caught.value.lines] == ["pairs", "generator.init"]


def test_what_a_refused_setting_leaves_behind_is_no_mistake() -> None:
    comparison = {
        "name": "c",
        "kind": "compare",
        "base": "digits",
        "budget": {"minutes": 1.0},
        "entries": {"shared": {}},
    }
    with pytest.raises(
        UserError, match=r"^c: entries\.shared: found a name that the folder needs for itself"
    ) as caught:
        load_recipe(comparison)
    assert len(caught.value.lines) == 1


def test_every_stage_is_looked_at() -> None:
    stages = [
        {"until_step": 2, "set": {"training": {"batch": 0, "seed": 1}}},
        {"until_step": 4000, "set": {"method": {"alpha": 1}}},
    ]
    with pytest.raises(UserErrors) as caught:
        load_recipe("gaussians", {"stages": stages})
    first, second = caught.value.lines
    assert first.startswith("gaussians: stages.0.set.training.seed: found 1, expected one of method.")
    assert second.startswith("gaussians: stages.1.set.method.alpha: found 1, expected one of method.")


def test_a_section_is_renamed_and_no_path_or_longer_name() -> None:
    lines = ["data: found 1; set data.size", "/a/data.png: damaged", "my_data.x: found 2", "pairs.data: found 3"]
    with pytest.raises(UserErrors) as caught, rename_section("data", "evaluation.real"):
        raise UserErrors(lines)
    assert caught.value.lines == ("evaluation.real: found 1; set evaluation.real.size", *lines[1:])


def test_mistakes_are_collected_once_each() -> None:
    mistakes = Mistakes()
    mistakes.require_none()
    for message in ("a: found 1", "b: found 2", "a: found 1"):
        with mistakes.collect():
            raise UserError(message)
    with mistakes.collect():
        raise UserErrors(["c: found 3", "b: found 2"])
    with pytest.raises(UserErrors) as caught:
        mistakes.require_none()
    assert caught.value.lines == ("a: found 1", "b: found 2", "c: found 3")

    single = Mistakes()
    single.add("a: found 1")
    with pytest.raises(UserError) as alone:
        single.require_none()
    assert not isinstance(alone.value, UserErrors)
    with pytest.raises(ZeroDivisionError), single.collect():
        raise ZeroDivisionError
