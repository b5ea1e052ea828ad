"""`unistep recipes FILE` prints every value of a recipe and where it comes from."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from unistep.cli import app
from unistep.recipes import builtin_recipes, load_recipe
from unistep.recipes.resolved import resolved_recipe
from unistep.recipes.smoke import smoke_forms

OWN = """
extends: gaussians-sid
kind: distill
pairs: {solver: ddim}
training: {optim: {generator: {lr: 5e-5}, fake_score: {betas: [0.1, 0.2]}}}
stages: [{until_step: 4000, set: {training: {batch: 3}}}]
smoke: {training: {batch: 2}, stages: []}
"""


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["recipes", *arguments], prog_name="unistep", catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def sources(text: str) -> dict[str, str]:
    """Dotted path -> `value <- source` of each line that has a source."""
    found, open_sections = dict[str, str](), list[str]()
    for line in text.splitlines():
        body, _, source = line.partition("  # ")
        depth = (len(body) - len(body.lstrip())) // 2
        key, _, value = body.strip().partition(": ")
        open_sections[depth:] = [key.removesuffix(":").strip()]
        if source:
            found[".".join(open_sections)] = f"{value.strip()} <- {source}"
    return found


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(OWN)
    return path


def test_each_value_is_marked_with_where_it_comes_from(own: Path) -> None:
    found = sources(run(str(own), "--set", "training.seed=3"))
    expected = {
        "name": "own <- default",
        "about": "'' <- default",
        "teacher.load": "gaussians:ring8 <- gaussians",
        "teacher.guidance": "1.0 <- default",
        "generator.sigma_init": "2.5 <- gaussians-sid",
        "method.name": "sid <- gaussians-sid",
        "method.alpha": "1.2 <- default",
        "pairs.solver.name": f"ddim <- {own}",
        "pairs.solver.num_steps": "18 <- default",
        "pairs.count": "20000 <- gaussians",
        "training.seed": "3 <- --set",
        "training.optim.generator.lr": f"5.0e-05 <- {own}",
        "training.optim.generator.warmup": "50 <- gaussians-sid",
        "training.optim.fake_score.betas": f"[0.1, 0.2] <- {own}",
        "training.ema.half_life": "150.0 <- gaussians",
        "stages": f" <- {own}",
    }
    assert {key: found.get(key) for key in expected} == expected


def test_the_smoke_form_has_its_own_mark(own: Path) -> None:
    found = sources(run(f"{own}:smoke"))
    assert found["training.batch"] == "2 <- smoke form"
    assert found["name"] == "own-smoke <- smoke form"


def test_settings_of_a_method_that_was_replaced_leave_no_trace(own: Path) -> None:
    own.write_text("extends: gaussians-sid\nkind: distill\nmethod: {name: sida}\ndata: {kind: exact}\n")
    found = sources(run(str(own)))
    assert found["method.fake_levels"].endswith("<- default")  # gaussians-sid sets it, for sid


@pytest.mark.parametrize("name", [*builtin_recipes(), *(f"{name}:smoke" for name in smoke_forms(builtin_recipes()))])
def test_what_is_printed_is_the_recipe_itself(name: str, tmp_path: Path) -> None:
    path = tmp_path / "printed.yaml"
    path.write_text(resolved_recipe(name, ()))
    assert load_recipe(path) == load_recipe(name)


def test_a_builtin_recipe_is_printed_to_copy_unless_more_is_asked_for() -> None:
    assert run("gaussians") == builtin_recipes()["gaussians"]
    assert "steps: 4000" in run("gaussians", "--resolved")
    assert sources(run("gaussians", "--set", "training.steps=7"))["training.steps"] == "7 <- --set"
