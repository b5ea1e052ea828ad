"""One merge rule: recipes on others, smoke forms, stages, entries of comparisons, overrides from shell and Python."""

from pathlib import Path
from typing import Any

import pytest

from unistep.errors import UserError
from unistep.methods.dmd import DMDConfig
from unistep.recipes import load_recipe
from unistep.recipes.entries import entry_recipe
from unistep.recipes.load import dump_recipe
from unistep.recipes.merge import TAGS, USUAL, drop_null, merge
from unistep.recipes.schema import DistillRecipe
from unistep.recipes.sections import SolverConfig
from unistep.recipes.stages import stages_of


def distill(source: Any, overrides: Any = ()) -> DistillRecipe:
    recipe = load_recipe(source, overrides)
    assert isinstance(recipe, DistillRecipe)
    return recipe


def written(folder: Path, text: str) -> Path:
    path = folder / "own.yaml"
    path.write_text(text)
    return path


def test_mappings_merge_at_every_depth_and_anything_else_replaces() -> None:
    base = {"a": {"b": {"c": 1, "d": 2}, "e": [1, 2]}, "f": 3}
    assert merge(base, {"a": {"b": {"d": 4}, "e": [5]}}) == {"a": {"b": {"c": 1, "d": 4}, "e": [5]}, "f": 3}
    assert merge(base, {"a": None}) == {"a": None, "f": 3}
    assert merge(base, {"f": {"g": 6}}) == {**base, "f": {"g": 6}}
    assert merge(base, {}) == base == merge({}, base)


@pytest.mark.parametrize("section", sorted(TAGS))
def test_another_choice_replaces_a_section_and_the_same_or_none_merges(section: str) -> None:
    tag = TAGS[section]
    base = {section: {tag: "first", "x": 1, "inner": {"y": 2}}}
    assert merge(base, {section: {tag: "second", "z": 3}}) == {section: {tag: "second", "z": 3}}
    assert merge(base, {section: {tag: "first", "inner": {"z": 3}}}) == {
        section: {tag: "first", "x": 1, "inner": {"y": 2, "z": 3}}
    }
    assert merge(base, {section: {"x": 4}})[section] == {tag: "first", "x": 4, "inner": {"y": 2}}
    assert merge({"deep": base}, {"deep": {section: {tag: "second"}}}) == {"deep": {section: {tag: "second"}}}
    assert base == {section: {tag: "first", "x": 1, "inner": {"y": 2}}}


def test_a_section_without_a_name_has_the_usual_choice() -> None:
    assert USUAL == {"method": DMDConfig().name, "solver": SolverConfig().name, "process": "edm"}
    base = {"solver": {"num_steps": 18, "options": {"rho": 5.0}}}
    assert merge(base, {"solver": {"name": "ddim"}}) == {"solver": {"name": "ddim"}}
    assert merge(base, {"solver": {"name": "heun", "num_steps": 4}})["solver"]["options"] == {"rho": 5.0}
    assert merge({"solver": "auto"}, {"solver": {"tolerance": 0.1}}) == {"solver": {"name": "auto", "tolerance": 0.1}}


def test_null_leaves_out_a_name_of_the_users_own_and_nothing_else() -> None:
    values = {"training": {"optim": {"default": {"lr": 1.0, "clip": None}, "fake_score": None}, "ema": None}}
    assert drop_null(values) == {"training": {"optim": {"default": {"lr": 1.0, "clip": None}}, "ema": None}}


def test_an_extending_recipe_keeps_what_it_does_not_name(tmp_path: Path) -> None:
    text = (
        "extends: fashion-mnist\nkind: distill\nmethod: {lambda_reg: 2.0}\npairs: {solver: {num_steps: 5}}\n"
        "training: {optim: {generator: {lr: 1e-3}}}\n"
    )
    base, own = distill("fashion-mnist"), distill(written(tmp_path, text))
    changed = merge(
        base.model_dump(mode="json"),
        {
            "name": "own",
            "about": "",
            "method": {"lambda_reg": 2.0},
            "pairs": {"solver": {"num_steps": 5}},
            "training": {"optim": {"generator": {"lr": 1e-3}}},
        },
    )
    assert own.model_dump(mode="json") == changed


def test_an_extending_recipe_with_another_method_forgets_the_settings_of_the_first(tmp_path: Path) -> None:
    text = "extends: gaussians\nkind: distill\nmethod: {name: sid}\n"
    assert distill(written(tmp_path, text)).method == distill("gaussians", ["method={name: sid}"]).method
    assert distill("gaussians", ["method.name=sid"]).method.name == "sid"


def test_the_smoke_form_the_stages_and_entries_follow_the_same_rule(tmp_path: Path) -> None:
    text = dump_recipe(load_recipe("gaussians")) + "smoke: {method: {name: knowledge, regression: l2}}\n"
    smoke = distill(f"{written(tmp_path, text)}:smoke")
    assert smoke.method == distill("gaussians", ["method={name: knowledge, regression: l2}"]).method

    staged = distill(
        "gaussians",
        {"stages": [{"until_step": 4000, "set": {"training": {"optim": {"generator": {"lr": 1e-5}}}}}]}
        | {"training.steps": 4000},
    )
    optim = stages_of(staged)[0].recipe.training.optim
    assert (optim["generator"].lr, optim["generator"].warmup, optim["fake_score"].lr) == (1e-5, 50, 1e-3)

    comparison = load_recipe(
        {
            "name": "c",
            "kind": "compare",
            "base": "digits",
            "budget": {"evaluations": 10**6},
            "entries": {"a": {"set": {"pairs": {"solver": {"name": "ddim"}}, "training": {"batch": 5}}}},
        }
    )
    entry = entry_recipe(comparison, "a")  # type: ignore[arg-type]
    assert isinstance(entry, DistillRecipe)
    assert entry.pairs is not None
    assert (entry.pairs.solver, entry.training.batch) == (SolverConfig(name="ddim"), 5)


def test_a_recipe_as_a_mapping() -> None:
    values = {
        "name": "mine",
        "kind": "distill",
        "extends": "gaussians",
        "training": {"optim": {"generator": {"lr": 1}}},
    }
    recipe = distill(values)
    assert (recipe.name, recipe.training.optim["generator"].lr, recipe.training.steps) == ("mine", 1, 4000)
    assert values["extends"] == "gaussians"
    tuples = distill(
        {**values, "training": {"optim": {"default": {"betas": (0.0, 0.5)}}}, "pairs": {"path": Path("p")}}
    )
    assert tuples.training.optim["default"].betas == (0.0, 0.5)
    assert tuples.pairs is not None
    assert tuples.pairs.path == "p"


@pytest.mark.parametrize(
    "overrides",
    [
        {"training.steps": 10, "method.lambda_reg": 0.5},
        {"training": {"steps": 10}, "method": {"lambda_reg": 0.5}},
        ["training.steps=10", "method.lambda_reg=0.5"],
        ("training={steps: 10}", "method.lambda_reg=0.5"),
    ],
)
def test_overrides_from_python(overrides: Any) -> None:
    recipe = distill("gaussians", overrides)
    assert (recipe.training.steps, recipe.training.batch) == (10, distill("gaussians").training.batch)
    assert recipe.model_dump()["method"]["lambda_reg"] == 0.5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            "training.steps=10",
            r"^overrides: found 'training\.steps=10', expected a list such as \['training\.steps=10'\] or a mapping "
            r"such as \{'training\.steps': 10\}$",
        ),
        (7, r"^overrides: found 7, expected a list such as"),
        ([("training.steps", 10)], r"^--set \('training\.steps', 10\): expected PATH=VALUE"),
        ({"training..steps": 1}, r"^--set training\.\.steps: expected PATH=VALUE"),
        ({"training.steps.more": 1}, r"^--set training\.steps\.more: training\.steps is 4000, it has nothing inside$"),
        ({"training.steps": "10"}, r"^gaussians: training\.steps: found '10', expected a whole number$"),
    ],
)
def test_overrides_that_are_none(overrides: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe("gaussians", overrides)


def test_something_else_than_a_recipe() -> None:
    with pytest.raises(UserError, match=r"^recipe: found 7, expected a built-in name, the path of a YAML file or a"):
        load_recipe(7)  # type: ignore[arg-type]


def test_a_solver_by_name_and_a_setting_of_it() -> None:
    overrides = ["pairs.solver=auto", "pairs.solver.tolerance=0.1"]
    recipe = distill("gaussians", overrides)
    assert recipe.pairs is not None
    assert recipe.pairs.solver.model_dump()["tolerance"] == 0.1


def test_nulls_of_an_entrys_settings_wait_for_the_base_that_they_are_laid_over() -> None:
    settings = {"training": {"optim": {"fake_score": None}}}
    assert drop_null({"entries": {"a": {"set": settings}, "b": None}}) == {"entries": {"a": {"set": settings}}}
    assert drop_null(settings) == {"training": {"optim": {}}}
