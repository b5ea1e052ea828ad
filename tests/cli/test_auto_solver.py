"""Solver `auto` as a user meets it: chosen once, said, kept with the pairs, charged in comparisons, planned for."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import unistep
from unistep.cli import app
from unistep.evaluation.comparison import Comparison
from unistep.pairs import PairStore, generate_pairs
from unistep.recipes import load_recipe
from unistep.recipes.schema import DistillRecipe
from unistep.recipes.sections import AutoSolverConfig, SolverConfig
from unistep.run import pairs as pairing
from unistep.run import solver_choice as choosing
from unistep.run.solver_choice import read_choice

AUTO: dict[str, Any] = {
    "name": "auto", "tolerance": 0.1, "probe": 8, "candidates": ["ddim", "dpmpp_2m"], "evaluations": [4, 6, 8, 10],
}  # fmt: skip
TINY: dict[str, Any] = {
    "teacher": {"certify": False},
    "fit": {
        "network": {"type": "mlp", "dim": 2, "width": 8, "num_blocks": 2},
        "training": {"steps": 2, "batch": 16},
        "samples": 64,
        "max_error": 100,
    },
    "training": {"steps": 10, "batch": 8, "preview_every": None},
    "evaluation": {"samples": 128, "samples_during_training": 100, "solver": {"name": "heun", "num_steps": 2}},
    "pairs": {"count": 15, "tile": 10, "solver": {"name": "heun", "num_steps": 2}},
}


def call(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*map(str, arguments)], prog_name="unistep", catch_exceptions=False)
    return result.exit_code, result.stderr


def pairs(out: Path, *more: str, solver: dict[str, Any] = AUTO) -> tuple[int, str]:
    """`unistep pairs gaussians` in small, under a solver."""
    sets = ["teacher.certify=false", "pairs.count=15", "pairs.tile=10", f"pairs.solver={json.dumps(solver)}"]
    return call("pairs", "gaussians", "--out", out, *(word for s in sets for word in ("--set", s)), *more)


def never(*_: object, **__: object) -> None:
    raise AssertionError("chosen again")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run's folder with pairs, and what was said."""
    out = tmp_path_factory.mktemp("auto") / "run"
    code, said = pairs(out)
    assert code == 0, said
    return out, said


def test_it_says_which_and_the_stores_facts_name_it(made: tuple[Path, str]) -> None:
    out, said = made
    kept = read_choice(out / "pairs" / "solver.json")
    solver, spent = kept.choice.chosen, kept.choice.spent
    line = next(line for line in said.splitlines() if line.startswith("solver auto: "))
    assert line == str(kept)
    for words in (
        f"{solver.solver['name']} with {solver.solver['num_steps']} steps ({solver.evaluations} evaluations)",
        f"error {solver.error:.4f} (tolerance 0.1)", "against heun with ", "on seeds 0..7", f"took {spent:,} network",
    ):  # fmt: skip
        assert words in line
    facts = json.loads((out / "pairs" / "manifest.json").read_text())["facts"]
    assert facts["solver"] == solver.solver
    assert json.loads((out / "run.json").read_text())["pairs_solver"] == kept.json()


def test_the_pairs_are_those_of_the_solver_named(made: tuple[Path, str], tmp_path: Path) -> None:
    named = read_choice(made[0] / "pairs" / "solver.json").solver.model_dump()
    code, said = pairs(tmp_path / "run", solver=named)
    assert (code, "auto" in said) == (0, False)
    shards = [
        {f.name: f.read_bytes() for f in (out / "pairs").glob("*.safetensors")} for out in (made[0], tmp_path / "run")
    ]
    assert shards[0] == shards[1] and len(shards[0]) == 2


def test_it_is_not_chosen_again(made: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "choose_solver", never)
    code, said = pairs(made[0], "--set", "pairs.count=25")
    assert code == 0 and str(read_choice(made[0] / "pairs" / "solver.json")) in said.splitlines()
    assert len(list((made[0] / "pairs").glob("*.safetensors"))) == 3


def test_a_run_that_is_killed_before_its_first_pair_goes_on_with_the_choice(
    made: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> PairStore:
        raise KeyboardInterrupt

    monkeypatch.setattr(pairing, "generate_pairs", killed)
    assert pairs(tmp_path)[0] != 0
    kept = (tmp_path / "pairs" / "solver.json").read_text()
    monkeypatch.setattr(pairing, "generate_pairs", generate_pairs)
    monkeypatch.setattr(choosing, "choose_solver", never)
    assert pairs(tmp_path)[0] == 0
    assert (tmp_path / "pairs" / "solver.json").read_text() == kept
    assert (
        read_choice(tmp_path / "pairs" / "solver.json").choice == read_choice(made[0] / "pairs" / "solver.json").choice
    )


def test_pairs_of_another_choice_are_refused_and_the_record_stays(made: tuple[Path, str]) -> None:
    file = made[0] / "pairs" / "solver.json"
    before = file.read_text()
    code, said = pairs(made[0], solver={**AUTO, "tolerance": 0.4})
    assert code == 2 and "manifest.json: solver." in said and "these pairs were made another way" in said
    assert file.read_text() == before


def test_an_option_takes_the_recipes_solvers_place(tmp_path: Path) -> None:
    sets = ["teacher.certify=false", "pairs.count=5", "pairs.tile=5", "pairs.solver.evaluations=[12]"]
    more = ["pairs.solver.candidates=[dpmpp_2m]", "pairs.solver.probe=8"]
    words = [word for s in (*sets, *more) for word in ("--set", s)]
    code, said = call("pairs", "gaussians", "--solver", "auto", "--out", tmp_path / "run", *words)
    assert code == 0, said
    assert "solver auto: dpmpp_2m with 12 steps (12 evaluations)" in said


@pytest.mark.parametrize(
    ("solver", "words"),
    [
        ({**AUTO, "tolerance": 0.001}, "pairs.solver.tolerance: found 0.001, expected one that a candidate keeps to"),
        ({**AUTO, "num_steps": 5}, "pairs.solver.num_steps: found 5, expected nothing: solver auto finds its own"),
        ({**AUTO, "probes": 5}, "pairs.solver.probes: unknown key; did you mean probe?"),
        ({**AUTO, "tolerance": 2}, "pairs.solver.tolerance: found 2, expected less than 1"),
        ({**AUTO, "candidates": ["consistency"]}, "pairs.solver.candidates.0: found 'consistency', expected 'euler'"),
        ({"name": "huen"}, "pairs.solver.name: found 'huen'; did you mean heun?"),
    ],
)
def test_mistakes_are_one_line(solver: dict[str, Any], words: str, tmp_path: Path) -> None:
    code, said = pairs(tmp_path / "run", solver=solver)
    last = said.splitlines()[-1]
    assert code == 2 and last.startswith("error: ") and words in last


def test_a_damaged_record_is_named(made: tuple[Path, str], tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    text = (made[0] / "pairs" / "solver.json").read_text()
    for damaged in (text[:50], text.replace("choice.v1", "choice.v0"), "[]", text.replace('"spent"', '"spend"')):
        (tmp_path / "pairs" / "solver.json").write_text(damaged)
        (tmp_path / "recipe.yaml").write_text((made[0] / "recipe.yaml").read_text())
        code, said = pairs(tmp_path)
        assert code == 2 and "solver.json: no readable choice" in said.splitlines()[-1]


def test_a_name_alone_is_a_solver_and_a_recipe_comes_back_as_it_was() -> None:
    for text, expected in (
        ("auto", AutoSolverConfig(name="auto")),
        ("ddim", SolverConfig(name="ddim")),
        ("{num_steps: 5}", SolverConfig(name="dpmpp_2m", num_steps=5)),  # the recipe's own
        (json.dumps(AUTO), AutoSolverConfig.model_validate(AUTO)),
    ):
        recipe = load_recipe("digits", [f"pairs.solver={text}"])
        assert isinstance(recipe, DistillRecipe) and recipe.pairs is not None
        assert recipe.pairs.solver == expected
        assert load_recipe(recipe) == recipe


# ------------------------------------------------------------------------------------------------- comparing, planning


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("compare")
    chosen = {"name": "dpmpp_2m", "num_steps": 8}
    entries = {
        "auto": {"about": "whatever is cheapest", "set": {"pairs": {"solver": {**AUTO, "evaluations": [8]}}}},
        "named": {"set": {"pairs": {"solver": chosen}}},
    }
    recipe = {
        "kind": "compare", "base": "gaussians-knowledge", "budget": {"evaluations": 4000}, "seeds": [0],
        "set": {**TINY, "pairs": {**TINY["pairs"], "count": 15}}, "entries": entries,
    }  # fmt: skip
    path, out = folder / "tiny.yaml", folder / "out"
    path.write_text("# tiny\n" + yaml.safe_dump(recipe))
    unistep.compare(path, out=out, device="cpu", quiet=True)
    return path, out


def test_a_comparison_charges_the_choice_and_shares_the_pairs(compared: tuple[Path, Path]) -> None:
    _, out = compared
    kept = read_choice(next((out / "shared").glob("solver-*.json")))
    assert kept.choice.chosen.solver == {"name": "dpmpp_2m", "num_steps": 8}
    plans = {name: json.loads(next((out / "shared").glob(f"{name}-*.json")).read_text()) for name in ("auto", "named")}
    assert plans["named"]["pair_evaluations"] == 20 * 8  # 15 in tiles of 10
    assert plans["auto"]["pair_evaluations"] == 20 * 8 + kept.choice.spent
    assert plans["auto"]["steps"] < plans["named"]["steps"]
    assert len([place for place in (out / "shared").glob("pairs-*") if place.is_dir()]) == 1
    rows = {row.name: row for row in Comparison.load(out / "compare.json").rows}
    assert rows["auto"].about == f"whatever is cheapest; {kept}"
    assert all(3900 < (rows[name].evaluations or 0) <= 4000 for name in plans)


def test_a_comparison_goes_on_without_choosing_again(
    compared: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = compared
    before = (out / "compare.json").read_text()
    monkeypatch.setattr(choosing, "choose_solver", never)
    unistep.compare(path, out=out, device="cpu", quiet=True)
    assert (out / "compare.json").read_text() == before


def test_a_plan_says_the_most_and_then_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unistep.planning.plan, "SECONDS", 0.2)
    monkeypatch.setattr(choosing, "choose_solver", never)
    overrides = [f"{key}={json.dumps(value)}" for key, value in TINY.items() if key not in ("pairs", "teacher")]
    overrides += [
        "teacher.certify=false",
        "method.lambda_reg=1",
        f"pairs={json.dumps({**TINY['pairs'], 'solver': AUTO})}",
    ]
    before = unistep.plan("gaussians", out=tmp_path / "run", overrides=overrides, quiet=True)
    stage = next(stage for stage in before.stages if stage.name == "pairs, at most")
    references, tried = sum(2 * n - 1 for n in (16, 32, 64, 128, 256)), 2 * (4 + 6 + 8 + 10)
    assert stage.evaluations == 20 * 10 + 8 * (references + tried)
    monkeypatch.undo()
    monkeypatch.setattr(unistep.planning.plan, "SECONDS", 0.2)
    store = unistep.make_pairs("gaussians", out=tmp_path / "run", overrides=overrides, quiet=True)
    kept = read_choice(store / "solver.json")
    overrides += ["pairs.count=25"]
    after = unistep.plan("gaussians", out=tmp_path / "run", overrides=overrides, quiet=True)
    stage = next(stage for stage in after.stages if stage.name == "pairs")
    assert stage.evaluations == 10 * kept.choice.chosen.evaluations
