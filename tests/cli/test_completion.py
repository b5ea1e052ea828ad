"""The shell completes recipes, settings of `--set` and their values."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from unistep.cli.completion import candidates, complete_recipe, complete_set, join_words
from unistep.errors import UserError
from unistep.recipes import load_recipe
from unistep.recipes.keys import setting_keys
from unistep.recipes.load import dump_recipe
from unistep.training.resume import flatten


def test_recipes_and_their_smoke_forms() -> None:
    assert complete_recipe("gaussians-d") == ["gaussians-dmd2", "gaussians-dmd2-steps"]
    assert complete_recipe("sd15-guidance3") == ["sd15-guidance3", "sd15-guidance3:smoke"]
    assert complete_recipe("no-such") == []


@pytest.mark.parametrize(
    ("incomplete", "words"),
    [
        ("training.prec", [f"training.precision={name}" for name in ("auto", "fp32", "bf16")]),
        ("training.precision=", [f"training.precision={name}" for name in ("auto", "fp32", "bf16")]),
        ("training.precision=b", ["training.precision=bf16"]),
        ("training.compile=", ["training.compile=false", "training.compile=true"]),
        ("training.optim.fake_score.l", ["training.optim.fake_score.lr=0.001", "training.optim.fake_score.lr="]),
        ("pairs.solver.name=d", ["pairs.solver.name=ddim", "pairs.solver.name=dpmpp_2m"]),
        ("data.k", [f"data.kind={k}" for k in ("folder", "idx", "parquet", "datasets", "cifar", "digits", "exact")]),
        ("training.steps=4", ["training.steps=4000"]),
        ("fit.network.w", ["fit.network.width=128", "fit.network.width="]),
        ("nothing", []),
    ],
)
def test_settings_and_values_of_a_recipe(incomplete: str, words: list[str]) -> None:
    found = candidates("gaussians", (), incomplete)
    assert found == words or (incomplete == "data.k" and sorted(found) == sorted(words))


def test_a_methods_own_settings_follow_the_recipe_and_earlier_overrides() -> None:
    assert "method.lambda_reg=" in candidates("gaussians", (), "method.l")
    assert candidates("gaussians", ["method.name=sid"], "method.l") == []
    assert "method.lambda_gan=" in candidates(None, (), "method.l")  # without a recipe those of every method
    assert "method.name=sid" in candidates("gaussians", (), "method.name=s")


def test_a_run_and_a_comparison(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(dump_recipe(load_recipe("gaussians")))
    recipe = str(tmp_path / "recipe.yaml")
    assert candidates(recipe, (), "evaluation.samples=") == ["evaluation.samples=10000"]
    assert "set.training.batch=" in candidates("paper-methods", (), "set.training.b")
    assert candidates("paper-methods", (), "budget.m")[-1] == "budget.minutes="


@pytest.mark.parametrize("name", ["gaussians", "fashion-mnist", "sd15-guidance3", "digits-teacher"])
def test_every_setting_of_a_recipe_is_offered(name: str) -> None:
    recipe = load_recipe(name)
    values = recipe.model_dump(mode="json")
    assert set(flatten(values)) <= set(setting_keys(type(recipe), values))


@pytest.mark.parametrize(
    ("words", "joined"),
    [
        (["unistep", "distill", "a", ":", "smoke"], ["unistep", "distill", "a:smoke"]),
        (["unistep", "distill", "a", "--set", "b.c", "=", "1"], ["unistep", "distill", "a", "--set", "b.c=1"]),
        (["unistep", "distill", "a", "--set", "b.c", "="], ["unistep", "distill", "a", "--set", "b.c="]),
        (["unistep", "d"], ["unistep", "d"]),
        (["unistep", ""], ["unistep", ""]),
    ],
)
def test_words_that_bash_takes_apart(words: list[str], joined: list[str]) -> None:
    assert join_words(words) == joined


def completed(shell: str, **variables: str) -> str:
    """What the program answers a shell."""
    environment = {**os.environ, "_UNISTEP_COMPLETE": f"complete_{shell}", **variables}
    program = [sys.executable, "-m", "unistep"]
    return subprocess.run(program, env=environment, check=True, capture_output=True, text=True, timeout=120).stdout


def test_bash_gets_what_comes_after_its_own_last_word() -> None:
    words = ["unistep", "distill", "gaussians", "--set", "training.precision", "=", "b"]
    assert completed("bash", COMP_WORDS="\n".join(words), COMP_CWORD="6") == "bf16\n"


@pytest.mark.slow
def test_zsh_gets_whole_words() -> None:
    answer = completed("zsh", _TYPER_COMPLETE_ARGS="unistep distill gaussians --set training.precision=f")
    assert '"training.precision=fp32"' in answer


def test_a_recipe_that_cannot_be_read_offers_nothing() -> None:
    with pytest.raises(UserError):
        candidates("no-such-recipe", (), "training.")
    context = SimpleNamespace(params={"set_": None}, args=["no-such-recipe"])
    assert complete_set(context, "training.") == []  # type: ignore[arg-type]


def test_an_unknown_key_names_the_nearest_or_the_section_it_belongs_to() -> None:
    with pytest.raises(
        UserError, match=r"gaussians: lambda_reg: unknown key; did you mean method\.lambda_reg\? expected"
    ):
        load_recipe("gaussians", ["lambda_reg=1"])
    with pytest.raises(UserError, match=r"training\.samples: unknown key; did you mean fit\.samples\? expected one of"):
        load_recipe("gaussians", ["training.samples=1"])
    with pytest.raises(UserError, match=r"training\.optim\.default\.lerning_rate: unknown key; expected one of "):
        load_recipe("gaussians", ["training.optim.default.lerning_rate=1"])
