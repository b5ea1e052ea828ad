"""A comparison on points from recipe to page: equal budgets that are really spent, resumed by looking, its mistakes."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

import unistep
from unistep.cli import app
from unistep.comparison import compare as comparing
from unistep.comparison.budget import EntryProfiler, max_affordable_steps, plan_entry, with_num_steps
from unistep.comparison.solver_rows import solver_rows, steps_for, unavailable
from unistep.costing.step_cost import counted
from unistep.costing.synthetic_batches import synthetic_batches
from unistep.diffusion.process import DiscreteVPProcess, FlowProcess
from unistep.errors import UserError
from unistep.evaluation import Evaluation
from unistep.evaluation.comparison import Comparison
from unistep.recipes import load_recipe
from unistep.recipes.comparison import Budget, CompareRecipe, SolverRows
from unistep.recipes.entries import Skipped, entry_recipe
from unistep.recipes.schema import DistillRecipe
from unistep.run.console import Talk
from unistep.run.pairs import pairs_of_run
from unistep.run.teacher import StudentInit, starting_point
from unistep.training.finite import NonFiniteError
from unistep.training.health import HealthMonitor
from unistep.training.state import TrainState
from unistep.training.step import train_step

CPU, QUIET = torch.device("cpu"), Talk(quiet=True)
TINY = """
# Two entries, small enough for a test.
kind: compare
base: gaussians
budget: {evaluations: 1000}
seeds: [0, 1]
set:
  teacher: {certify: false}
  fit:
    network: {type: mlp, dim: 2, width: 8, num_blocks: 2}
    training: {steps: 2, batch: 16}
    samples: 64
    max_error: 100
  training: {steps: 10, batch: 8, preview_every: null}
  evaluation: {samples: 128, samples_during_training: 100, solver: {name: heun, num_steps: 2}}
  pairs: {count: 15, tile: 10, solver: {name: heun, num_steps: 2}}
entries:
  dmd: {about: the base with pairs, set: {method: {lambda_reg: 1, dm_from_step: 5, fake_score_from_step: 4}}}
  gan: {set: {method: {name: gan}}}
  knowledge: {recipe: "{base}-knowledge"}
solvers:
  - {name: heun, evaluations: [3]}
"""
METHODS = {
    "dmd": ("gaussians", {"lambda_reg": 1, "dm_from_step": 5, "fake_score_from_step": 4}),
    "dmd2": ("gaussians-dmd2", {}),
    "dmd2-steps": ("gaussians-dmd2-steps", {}),
    "sid": ("gaussians-sid", {}),
    "consistency": ("gaussians-consistency", {}),
    "progressive": ("gaussians-progressive", {"start_steps": 8, "final_steps": 2, "long_rounds": 1}),
    "instaflow": ("gaussians-instaflow", {"distil_from_step": 3}),
}


def recipe(folder: Path, **changes: object) -> Path:
    path = folder / "tiny.yaml"
    path.write_text("# tiny\n" + yaml.safe_dump({**yaml.safe_load(TINY), **changes}))
    return path


def loaded(folder: Path, **changes: object) -> CompareRecipe:
    found = load_recipe(recipe(folder, **changes))
    assert isinstance(found, CompareRecipe)
    return found


def snapshot(folder: Path) -> dict[str, int]:
    """Everything that the runs have written, with its time."""
    return {str(p): p.stat().st_mtime_ns for run in folder.glob("*/seed-*") for p in run.rglob("*") if p.is_file()}


# ------------------------------------------------------------------------------------------------------- end to end


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A comparison of one entry, then the rest."""
    folder = tmp_path_factory.mktemp("compare")
    path, out = recipe(folder), folder / "out"
    unistep.compare(path, out=out, only=["knowledge"], device="cpu", quiet=True)
    half = Comparison.load(out / "compare.json")
    assert half.missing.keys() == {"dmd", "gan"}
    assert half.missing["dmd"] == "not run yet"
    before = snapshot(out)
    unistep.compare(path, out=out, device="cpu", quiet=True)
    assert before.items() <= snapshot(out).items()
    return path, out


def test_each_entry_has_a_row_over_its_seeds_at_the_same_budget(finished: tuple[Path, Path]) -> None:
    result = Comparison.load(finished[1] / "compare.json")
    rows = {row.name: row for row in result.rows}
    assert list(rows) == ["exact samples", "teacher", "teacher at one step", "Heun, 3", "dmd", "knowledge"]
    for name in ("dmd", "knowledge"):
        row = rows[name]
        assert row.evaluations is not None
        assert 900 < row.evaluations <= 1000
        assert [len(row.figures["energy"]), len(row.minutes), row.nfe] == [2, 2, 1]
        assert row.runs == {"0": f"{name}/seed-0", "1": f"{name}/seed-1"}
        first, second = row.figures["energy"]
        assert first != second
    assert (rows["Heun, 3"].nfe, rows["Heun, 3"].evaluations) == (3, None)
    assert rows["Heun, 3"].figures["energy"] == rows["teacher"].figures["energy"]  # the same solver, from elsewhere
    assert result.missing == {"gan": "gan learns from real images, and the recipe has no data"}


def test_entries_are_ordinary_runs_with_shared_pairs_and_teacher(finished: tuple[Path, Path]) -> None:
    _, out = finished
    runs = sorted(out.glob("*/seed-*"))
    assert [str(run.relative_to(out)) for run in runs] == [
        f"{e}/seed-{s}" for e in ("dmd", "knowledge") for s in (0, 1)
    ]
    assert len({(run / "teacher").resolve() for run in runs}) == 1
    assert len(list((out / "shared").glob("pairs-*.json"))) == 1
    assert json.loads(next((out / "shared").glob("pairs-*.json")).read_text())["rows"] == 20  # 15 in whole tiles, once
    assert unistep.sample(runs[0], num=4).is_file()


def test_the_page_needs_nothing_else(finished: tuple[Path, Path]) -> None:
    page = (finished[1] / "compare.html").read_text()
    assert page.count("<svg") == 2
    for words in ("Quality against cost", "knowledge/seed-1/report.html", "gan learns from real images", "Heun, 3"):
        assert words in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_a_second_call_trains_and_judges_nothing(finished: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = finished

    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained or measured again")

    monkeypatch.setattr(comparing, "distill", never)
    monkeypatch.setattr("unistep.comparison.budget.measure_step", never)
    monkeypatch.setattr("unistep.comparison.solver_rows.judged", never)
    before, result = snapshot(out), (out / "compare.json").read_text()
    unistep.compare(path, out=out, device="cpu", quiet=True)
    assert (snapshot(out), (out / "compare.json").read_text()) == (before, result)


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, Path]:
    """A comparison of one entry and one seed, run."""
    path = recipe(tmp_path, entries={"knowledge": {"recipe": "{base}-knowledge"}}, seeds=[0], solvers=[])
    unistep.compare(path, out=tmp_path / "out", device="cpu", quiet=True)
    return path, tmp_path / "out"


def test_a_run_that_was_judged_otherwise_is_judged_again(small: tuple[Path, Path]) -> None:
    path, out = small
    run, before = out / "knowledge" / "seed-0", (out / "compare.json").read_text()
    made = (run / "generator" / "model.safetensors").read_bytes()
    unistep.evaluate(run, overrides=["evaluation.samples=100"], device="cpu", quiet=True)
    unistep.compare(path, out=out, device="cpu", quiet=True)
    found, expected = Comparison.load(out / "compare.json"), json.loads(before)
    assert found.rows[-1].figures == expected["rows"][-1]["figures"]
    assert {row.num_samples for row in Evaluation.load(run / "evaluation.json").rows} == {128}
    assert (run / "generator" / "model.safetensors").read_bytes() == made


def test_what_is_refused_is_not_lost(small: tuple[Path, Path]) -> None:
    path, out = small
    before = snapshot(out)
    pairs = set((out / "shared").glob("pairs-*"))
    with pytest.raises(UserError, match=r"^knowledge, seed 0: pairs\.solver\.num_steps: found 3, expected 2"):
        unistep.compare(path, out=out, overrides=["set.pairs.solver.num_steps=3"], device="cpu", quiet=True)
    assert snapshot(out) == before
    assert set((out / "shared").glob("pairs-*")) == pairs  # nor are pairs made for what is refused
    assert not (out / "compare.json").exists()  # of other settings
    unistep.compare(path, out=out, device="cpu", quiet=True)
    assert Comparison.load(out / "compare.json").rows[-1].name == "knowledge"


def test_other_weights_are_exported_and_judged(small: tuple[Path, Path]) -> None:
    path, out = small
    for weights in ("raw", "ema"):
        unistep.compare(path, out=out, overrides=[f"set.generator.weights={weights}"], device="cpu", quiet=True)
        assert json.loads((out / "knowledge" / "seed-0" / "run.json").read_text())["weights"]["exported"] == weights


def test_a_run_that_fails_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {"a": {"recipe": "{base}-knowledge"}, "b": {"recipe": "{base}-knowledge"}}
    path, out, train = recipe(tmp_path, entries=entries, solvers=[]), tmp_path / "out", comparing.distill

    def failing(recipe: DistillRecipe, **how: Any) -> Path:
        if recipe.name == "tiny-a-seed-1":
            raise NonFiniteError("loss term reg", "generator", "regression", 3, 0)
        return train(recipe, **how)

    monkeypatch.setattr(comparing, "distill", failing)
    with pytest.raises(UserError, match="^a, seed 1: "):
        unistep.compare(path, out=out, device="cpu", quiet=True)
    found = Comparison.load(out / "compare.json")
    assert {row.name: list(row.runs) for row in found.rows if row.role == "entry"} == {"a": ["0"], "b": ["0", "1"]}
    assert found.missing.keys() == {"a, seed 1"}


def test_entries_use_the_cache_unless_told_otherwise(small: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = small
    (out / "knowledge" / "seed-0" / "evaluation.json").unlink()  # to be judged again
    asked: list[bool] = []
    monkeypatch.setattr(comparing, "distill", lambda *_, cache, **__: asked.append(cache))
    for flags in ([], ["--no-cache"]):
        CliRunner().invoke(app, ["compare", str(path), "--out", str(out), "--device", "cpu", "-q", *flags])
    assert asked == [True, False]


def test_seeds_that_are_not_there_are_named(small: tuple[Path, Path]) -> None:
    path, out = small
    unistep.compare(path, out=out, overrides=["seeds=[0, 1, 2]"], only=["solvers"], device="cpu", quiet=True)
    found = Comparison.load(out / "compare.json")
    assert found.missing == {f"knowledge, seed {seed}": "not run yet" for seed in (1, 2)}


def test_solvers_that_do_not_suit_the_process_are_left_out_by_name(small: tuple[Path, Path]) -> None:
    path, out = small
    row = "solvers=[{name: heun, evaluations: [3], options: {S_churn: 1}}, {name: ddim, evaluations: [2]}]"
    linear = ["set.teacher.load=gaussians:ring8", row]
    unistep.compare(path, out=out, overrides=linear, device="cpu", quiet=True)
    assert "DDIM, 2" in {row.name for row in Comparison.load(out / "compare.json").rows}
    for name, process, words in (
        ("heun", DiscreteVPProcess.linear(), "EDM processes only"),
        ("unipc", FlowProcess(), "unipc"),
    ):
        (bad,) = solver_rows(
            (SolverRows(name=name, evaluations=(3,), options={"S_churn": 1.0} if name == "heun" else {}),)
        )
        found = unavailable(bad, process)
        assert found is not None
        assert words in found.reason


# ----------------------------------------------------------------------------------------------------------- budgets


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> StudentInit:
    folder = tmp_path_factory.mktemp("start")
    entry = entry_recipe(loaded(folder), "dmd")
    assert isinstance(entry, DistillRecipe)
    return starting_point(entry, folder, CPU, QUIET, True)


@pytest.mark.parametrize("name", METHODS)
def test_the_planned_evaluations_are_those_of_the_whole_training(name: str, start: StudentInit, tmp_path: Path) -> None:
    base, method = METHODS[name]
    comparison = loaded(tmp_path, entries={"it": {"recipe": base, "set": {"method": method}}})
    entry = entry_recipe(comparison, "it")
    assert isinstance(entry, DistillRecipe)
    meter = EntryProfiler(entry, start, CPU)
    plan = meter.plan(Budget(evaluations=2500), "")
    assert plan.evaluations <= 2500
    longer = meter.training(plan.steps + 1)
    assert longer is not None
    assert longer[0] + plan.pair_evaluations > 2500

    planned = with_num_steps(entry, plan.steps)
    trained = planned.method.build(dataclasses.replace(meter.inputs, steps=plan.steps))
    state = TrainState.start(trained, planned.training, HealthMonitor(steps=plan.steps))
    batches = synthetic_batches(planned, start.teacher, CPU)
    with counted([start.teacher.denoiser, *trained.networks.values(), *trained.auxiliary_networks.values()]) as tally:
        for _ in range(plan.steps):
            train_step(state, batches, planned.training, CPU)
    assert round(tally.evaluations) == plan.step_evaluations  # shares of the encoder make fractions


def test_pairs_are_counted_as_they_are_made(start: StudentInit, tmp_path: Path) -> None:
    entry = entry_recipe(loaded(tmp_path), "knowledge")
    assert isinstance(entry, DistillRecipe)
    rows, evaluations, _ = EntryProfiler(entry, start, CPU).pairs()
    with counted([start.teacher.denoiser]) as tally:
        pairs_of_run(entry, start.teacher, tmp_path, CPU, QUIET, quiet=True)
    assert (rows, evaluations) == (20, 60)  # 15 in tiles of 10, three evaluations each
    assert tally.evaluations == evaluations


def test_one_step_of_dmd_costs_what_algorithm_1_says(start: StudentInit, tmp_path: Path) -> None:
    entry = entry_recipe(loaded(tmp_path), "dmd")
    assert isinstance(entry, DistillRecipe)
    meter = EntryProfiler(entry, start, CPU)
    one, two, ten = (meter.training(steps) for steps in (4, 5, 10))
    assert one is not None and two is not None and ten is not None
    regression, fake, matching = 8 * 3, 8 * 3, 8 * (3 + 1 + 1)  # G alone; mu_fake; G, mu_base, mu_fake
    # of 10 steps 4 are regression, 1 trains a fake score on fresh samples too, 5 match on samples that are reused
    assert ten[0] == 10 * regression + (8 + fake) + 5 * (matching + fake)


def test_a_budget_of_minutes_is_planned_from_timed_steps(start: StudentInit, tmp_path: Path) -> None:
    entry = entry_recipe(loaded(tmp_path), "knowledge")
    assert isinstance(entry, DistillRecipe)
    meter = EntryProfiler(entry, start, CPU, timed=1)
    plan = meter.plan(Budget(minutes=0.05), "")
    spent, longer = meter.training(plan.steps), meter.training(plan.steps + 1)
    assert spent is not None and longer is not None
    assert 0 < spent[1] <= 3 < longer[1] + 60


def test_a_plan_of_minutes_is_found_again(start: StudentInit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = entry_recipe(loaded(tmp_path), "knowledge")
    assert isinstance(entry, DistillRecipe)
    budgets = [Budget(minutes=0.02), Budget(minutes=0.04)]
    made = [plan_entry(entry, budget, start, CPU, tmp_path / "plans", "knowledge") for budget in budgets]
    monkeypatch.setattr("unistep.comparison.budget.EntryProfiler", None)  # what is known is not measured again
    assert [plan_entry(entry, budget, start, CPU, tmp_path / "plans", "knowledge") for budget in budgets] == made


def test_milestones_keep_their_share() -> None:
    written = load_recipe("fashion-mnist")
    assert isinstance(written, DistillRecipe)
    method = with_num_steps(written, 475).method.model_dump()
    assert (method["fake_score_from_step"], method["dm_from_step"]) == (300, 350)


@pytest.mark.parametrize(("budget", "expected"), [(0, None), (29, None), (30, 3), (39, 3), (40, 4), (1234, 123)])
def test_the_longest_training_within_a_budget(budget: int, expected: int | None) -> None:
    assert max_affordable_steps(lambda steps: 10 * steps if steps >= 3 else None, budget) == expected


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": {}}, r"tiny\.yaml: budget\.evaluations, minutes: found None and None, expected exactly one"),
        ({"entries": {"shared": {}}}, r"entries\.shared: found a name that the folder needs for itself"),
        ({"entries": {"a": {"set": {"evaluation": {}}}}}, r"entries\.a\.set\.evaluation: found settings, expected no"),
        ({"entries": {"a": {"recip": "x"}}}, r"entries\.a\.recip: unknown key; did you mean recipe\?"),
        ({"seeds": [1, 1]}, r"seeds: found \[1, 1\], expected each seed once"),
        ({"solvers": [{"name": "ddim", "evaluations": [1], "option": {}}]}, r"solvers\.0\.option: unknown key; did"),
        ({"solvers": [{"name": "ddim", "evaluations": [1, 1]}]}, r"solvers\.0\.evaluations: found \[1, 1\], expect"),
        (
            {"solvers": [{"name": "ddim", "evaluations": [1], "options": {"num_steps": 1}}]},
            r"solvers\.0\.options\.num_steps: found a number, expected none",
        ),
        ({"set": {"evaluation": None}}, r"set\.evaluation: found None, expected settings by name"),
        ({"set": {"teacher": "runs/t"}}, r"set\.teacher: found 'runs/t', expected settings by name"),
        ({"entries": {"a": {"set": {"teacher": "runs/t"}}}}, r"entries\.a: teacher: found 'runs/t', expected settings"),
        ({"entries": {"a": {"set": {"method": {"name": "gan"}, "data": {}}}}}, r"entries\.a: data\.kind: missing"),
        ({"base": "paper-methods"}, r"tiny: base: found paper-methods, a recipe of kind compare, expected one of kind"),
        ({"solvers": [{"name": "heun", "evaluations": [4]}]}, r"solvers\.0\.evaluations: found 4, expected .* 3 or 5"),
        ({"entries": {"a": {"set": {"method": {"x": 1}}}}}, r"tiny: entries\.a: method\.x: unknown key"),
        ({"entries": {"a": {"set": {"teacher": {"load": "y"}}}}}, r"entries\.a: teacher\.load: found y, expected ga"),
        ({"entries": {"a": {"recipe": "{base}-x"}}}, r"recipe gaussians-x: not found; did you mean"),
        ({"entries": {"a": {"recipe": "{base}-gan", "set": {"data": None}}}}, "found no entry that can be run: a: gan"),
        ({"budget": {"evaluations": 61}}, r"budget\.evaluations: found 61, expected more for tiny-dmd: its pairs take"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as raised:
        unistep.compare(recipe(tmp_path, **changes), out=tmp_path / "out", device="cpu", quiet=True)
    assert "\n" not in str(raised.value)


def test_an_unknown_entry_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--only dmd3: no such entry; expected one of dmd, gan, knowledge, solvers$"):
        unistep.compare(recipe(tmp_path), only=["dmd3"], out=tmp_path / "out", quiet=True)


def test_an_entry_asked_for_that_cannot_be_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="^--only gan: found an entry that cannot be run: gan learns from real images"):
        unistep.compare(recipe(tmp_path), only=["gan"], out=tmp_path / "out", quiet=True)


def test_an_entry_that_is_too_dear_stands_in_nobody_elses_way(tmp_path: Path) -> None:
    entries = {
        "cheap": {"recipe": "{base}-knowledge"},
        "dear": {"recipe": "{base}-knowledge", "set": {"pairs": {"count": 1000}}},
    }
    path, out = recipe(tmp_path, entries=entries, seeds=[0], solvers=[]), tmp_path / "out"
    unistep.compare(path, out=out, only=["cheap"], device="cpu", quiet=True)
    found = Comparison.load(out / "compare.json")
    assert found.missing.keys() == {"dear"}
    assert found.missing["dear"].startswith(
        "budget.evaluations: found 1000, expected more for tiny-dear: its pairs take"
    )
    with pytest.raises(UserError, match="expected more for tiny-dear"):
        unistep.compare(path, out=out, only=["dear"], device="cpu", quiet=True)


def test_several_ranks_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="compare: found 2 ranks, expected one process"):
        unistep.compare(recipe(tmp_path), out=tmp_path / "out", quiet=True)


@pytest.mark.parametrize("name", ["paper-methods", "paper-ablations", "dmd-to-dmd2", "guidance", "pair-cost"])
@pytest.mark.parametrize("base", ["fashion-mnist", "digits"])
def test_the_ready_recipes_have_valid_entries(name: str, base: str) -> None:
    comparison = load_recipe(name, [f"base={base}"])
    assert isinstance(comparison, CompareRecipe)
    found = [entry_recipe(comparison, entry) for entry in comparison.entries]
    assert sum(isinstance(entry, DistillRecipe) for entry in found) >= 3
    assert all("real images" in entry.reason for entry in found if isinstance(entry, Skipped))


def test_entries_whose_solver_is_not_installed_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unistep.diffusion.samplers.build.find_spec", lambda name: None)
    comparison = load_recipe("pair-cost")
    assert isinstance(comparison, CompareRecipe)
    found = {entry: entry_recipe(comparison, entry) for entry in comparison.entries}
    reasons = {name: entry.reason for name, entry in found.items() if isinstance(entry, Skipped)}
    reason = "pairs.solver unipc needs diffusers; pip install 'unistep[diffusers]'"
    assert reasons == {name: reason for name in comparison.entries if name.startswith("unipc")}


def test_heun_takes_odd_numbers_of_evaluations() -> None:
    heun = SolverRows(name="heun", evaluations=(1,))
    assert [steps_for(heun, n, "") for n in (1, 3, 5, 9, 35)] == [1, 2, 3, 5, 18]
    assert steps_for(SolverRows(name="consistency", evaluations=(2,), options={"times": [0.8]}), 2, "") == 2
