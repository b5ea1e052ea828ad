"""Recipes on top of others: settings merge at every depth, another method replaces the first, mistakes are named."""

from pathlib import Path

import pytest
import yaml

from unistep.errors import UserError
from unistep.recipes import load_recipe
from unistep.recipes.load import dump_recipe
from unistep.recipes.schema import DistillRecipe

OWN = """
extends: gaussians
kind: distill
method: {name: knowledge, regression: l2}
training: {steps: 7, optim: {generator: {lr: 1e-3}, fake_score: null}}
pairs: {count: 11}
fit: null
"""


def load(folder: Path, text: str = OWN, overrides: tuple[str, ...] = ()) -> DistillRecipe:
    path = folder / "own.yaml"
    path.write_text(text)
    recipe = load_recipe(path, overrides)
    assert isinstance(recipe, DistillRecipe)
    return recipe


def test_sections_merge_and_the_method_is_replaced(tmp_path: Path) -> None:
    base, own = load_recipe("gaussians"), load(tmp_path)
    assert isinstance(base, DistillRecipe)
    assert (own.name, own.about, own.method.name) == ("own", "", "knowledge")
    assert (own.training.steps, own.training.batch, list(own.training.optim)) == (7, base.training.batch, ["generator"])
    assert own.pairs is not None
    assert base.pairs is not None
    assert (own.pairs.count, own.pairs.solver) == (11, base.pairs.solver)
    assert (own.fit, own.evaluation) == (None, base.evaluation)


def test_overrides_come_last(tmp_path: Path) -> None:
    assert load(tmp_path, overrides=("training.steps=9",)).training.steps == 9


def test_what_a_run_keeps_stands_alone(tmp_path: Path) -> None:
    own = load(tmp_path)
    assert "extends" not in yaml.safe_load(dump_recipe(own))
    (tmp_path / "kept.yaml").write_text(dump_recipe(own))
    assert load_recipe(tmp_path / "kept.yaml") == own


def test_recipes_may_stand_on_recipes_that_stand_on_others(tmp_path: Path) -> None:
    load(tmp_path)
    top = tmp_path / "top.yaml"
    top.write_text(f"extends: {tmp_path / 'own.yaml'}\ntraining: {{batch: 3}}\n")
    recipe = load_recipe(top)
    assert (recipe.training.batch, recipe.training.steps) == (3, 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: gausians", "recipe gausians: not found; did you mean gaussians"),
        ("extends: [gaussians]", r"own\.yaml: extends: found \['gaussians'\], expected a recipe's name or path"),
        ("extends: HERE/own.yaml", "extends: found '.*', expected at most 8 recipes on top of each other"),
        ("extends: gaussians\nmethod: {name: knowledge, x: 1}", r"own\.yaml: method\.x: unknown key"),
        ("extends: HERE/list.yaml", r"own\.yaml: extends: found .*, which is no mapping, expected a recipe"),
    ],
)
def test_mistakes(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(UserError, match=message):
        load(tmp_path, text.replace("HERE", str(tmp_path)))
