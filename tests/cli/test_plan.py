"""`unistep plan` as a user meets it: what it says, what it leaves alone, whether a run's files are as planned."""

import json
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_recipes
import torch
import yaml
from torch import Tensor, nn
from typer.testing import CliRunner

import unistep
from unistep.cli import app
from unistep.diffusion.process import DiscreteVPProcess
from unistep.planning import plan as planning
from unistep.planning.disk import missing_shards
from unistep.recipes import load_recipe
from unistep.recipes.schema import DistillRecipe
from unistep.teachers import teacher_from_module

SOLVER = {"name": "heun", "num_steps": 3}  # 5 evaluations
POINTS = [
    "teacher.certify=false", "fit.training={steps: 2, batch: 16}", "fit.samples=64", "fit.max_error=100",
    "method.lambda_reg=1",
    "training.steps=3", "training.batch=16", "training.preview_every=null", "training.checkpoint={keep: 1}",
    "pairs={count: 40, tile: 16, solver: {name: heun, num_steps: 3}}", "evaluation.samples=128",
    "evaluation.samples_during_training=100", "evaluation.solver={name: heun, num_steps: 3}",
]  # fmt: skip
TRAINING = {"steps": 4, "batch": 8, "evaluate_every": 2}
TEACH = {
    **tiny_recipes.TEACH,
    "training": TRAINING,
    "evaluation": {"judge": "train", "judge_steps": 5, "samples_during_training": 130, "solver": SOLVER},
}  # fmt: skip
DISTILL = {
    "kind": "distill",
    "pairs": {"count": 20, "tile": 8, "solver": SOLVER},
    "teacher": {"teach": "teach.yaml", "guidance": 2.0},
    "method": {"lambda_reg": 1, "regression": "l2", "fake_score_from_step": 1, "dm_from_step": 3},
    "training": TRAINING,
    "evaluation": {"judge": "train", "samples": 1000, "samples_during_training": 130, "solver": SOLVER},
}


def call(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["plan", *map(str, arguments)], prog_name="unistep", catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def sets(overrides: list[str]) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


def refuse(*arguments: str | Path) -> str:
    code, out, err = call(*arguments)
    assert code == 2, (out, err)
    assert err.startswith("error: ") and err.count("\n") == 1
    return err


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, with two recipes that need each other; little time is spent on measuring."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(planning, "SECONDS", 0.2)
    for name, recipe in (("teach.yaml", TEACH), ("distill.yaml", DISTILL)):
        Path(name).write_text(yaml.safe_dump(recipe))
    return tmp_path


@contextmanager
def nothing_changes(folder: Path) -> Iterator[None]:
    """Neither files nor the process's random numbers, threads and modes."""

    def state() -> list[Any]:
        generators = [torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()]
        modes = [torch.get_num_threads(), torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()]
        return [{file: file.stat().st_mtime_ns for file in folder.rglob("*")}, generators, modes]

    before = state()
    yield
    assert state() == before


def bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


# ------------------------------------------------------------------------------------------------------ a whole run


def test_points_are_planned_and_the_runs_files_are_as_planned(here: Path) -> None:
    with nothing_changes(here):
        code, out, err = call("gaussians", "--json", *sets(POINTS))
    assert (code, err) == (0, "")
    plan = json.loads(out)
    stages = {stage["name"]: stage for stage in plan["stages"]}
    assert list(stages) == ["fit", "pairs", "training", "previews and figures", "evaluation"]
    assert stages["pairs"]["evaluations"] == 48 * 5  # three whole shards
    assert stages["training"]["evaluations"] == 3 * 16 * (3 + 3 + 1 + 1 + 3)  # G(z), G(z_ref), mu_base, mu_fake twice
    assert {n["name"]: n["learns"] for n in plan["networks"]} == {
        "teacher": False, "generator": True, "fake_score": True,
    }  # fmt: skip
    assert plan["fits"] and plan["seconds"] == pytest.approx(sum(s["seconds"] for s in plan["stages"]))
    assert not (here / "runs").exists()

    run = unistep.distill("gaussians", overrides=POINTS, out=here / "run", quiet=True)
    pairs = sum(file.stat().st_size for file in (run / "pairs").iterdir())
    assert stages["pairs"]["disk"]["pairs"] == pytest.approx(pairs, rel=0.01)
    checkpoints = stages["training"]["disk"]["checkpoints (the last 1)"]
    assert checkpoints == pytest.approx(bytes_in(run / "checkpoints"), rel=0.05)
    assert stages["training"]["disk"]["weights"] == pytest.approx(bytes_in(run / "generator"), rel=0.02)
    recipe = load_recipe("gaussians", POINTS)
    assert isinstance(recipe, DistillRecipe) and recipe.pairs is not None
    assert [missing_shards(recipe.pairs, place / "pairs") for place in (here, run)] == [3, 0]


def test_a_teacher_that_is_taught_first_has_stages_of_its_own(here: Path) -> None:
    with nothing_changes(here):
        code, out, err = call("distill.yaml", "--json")
    assert (code, err) == (0, "")
    stages = {stage["name"]: stage for stage in json.loads(out)["stages"]}
    assert list(stages) == [
        "teacher: judge", "teacher: training", "teacher: previews and figures",
        "pairs", "training", "previews and figures", "evaluation",
    ]  # fmt: skip
    assert [(step["phases"], step["count"]) for step in stages["training"]["steps"]] == [
        (["regression"], 1), (["regression", "fake_score"], 2), (["generator", "fake_score"], 1),
    ]  # fmt: skip
    assert stages["pairs"]["evaluations"] == 24 * 2 * 5  # guided
    looks = 2 * 10 + 2 * 130  # previews at the start and at the end, figures at steps 2 and 4
    assert stages["teacher: previews and figures"]["evaluations"] == 5 * looks
    assert all(stage["seconds"] > 0 for stage in stages.values())
    assert sum(stages["training"]["memory"].values()) > stages["training"]["memory"]["Python and its libraries"] > 50e6


def test_a_teach_recipe_is_planned_as_tables(here: Path) -> None:
    with nothing_changes(here):
        code, out, err = call("teach.yaml", "--set", "evaluation.judge=null")
    assert code == 0 and "measuring" in err
    assert "denoiser" in out and "4 x denoiser" in out and "in all" in out
    assert "Adam's moments" in out and "average (EMA)" in out and "images" in out
    assert "training: weights" in out and "disk, runs/teach" in out
    assert re.fullmatch(r"fits: .* of memory \(.*\), .* of disk \(.*\), about .*", out.rstrip().splitlines()[-1])


def test_a_teacher_of_your_own_is_planned_too(here: Path) -> None:
    class MyUNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside, self.out = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)

        def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
            return self.out(self.inside(x_t).relu())

    with torch.random.fork_rng():
        network = MyUNet()
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    teacher = teacher_from_module(network, process=DiscreteVPProcess.linear(), prediction="eps", shape=(1, 8, 8))
    with nothing_changes(here):
        plan = unistep.plan(
            "distill.yaml",
            overrides=["teacher={teach: null, guidance: 1.0}", "evaluation.judge=null"],
            teacher=teacher,
            quiet=True,
        )
    assert plan.fits and plan.measured and plan.seconds is not None
    assert [stage.name for stage in plan.stages] == ["pairs", "training", "previews and figures", "evaluation"]
    assert plan.networks[0].parameters == sum(p.numel() for p in network.parameters()) == 8 * 9 + 8 + 8 * 9 + 1
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


# ---------------------------------------------------------------------------------------------------- does not fit


def test_what_does_not_fit_is_code_1_and_says_what_would_help(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "SECONDS", 15.0)  # a row or two do not tell what a batch takes
    code, out, _ = call("teach.yaml", "--memory", "0.001", *sets(["evaluation.judge=null", "training.batch=128"]))
    assert code == 1
    lines = out.splitlines()
    assert any(re.match(r"does not fit: .* of memory \(1 MB available\)", line) for line in lines)
    assert "no setting saves enough memory: it takes a machine with more" in lines
    offered = [re.findall(r"--set (\S+?):? ", line) for line in lines if line.startswith("  --set ")]
    assert {name.split("=")[0] for names in offered for name in names} >= {"training.accumulate", "training.batch"}
    for names in offered:
        load_recipe("teach.yaml", names)  # each is a recipe


def test_networks_that_cannot_fit_are_counted_and_not_built(here: Path) -> None:
    huge = {**TEACH, "network": {**TEACH["network"], "model_channels": 2**17}}  # type: ignore[dict-item]
    Path("huge.yaml").write_text(yaml.safe_dump(huge))
    for recipe in ("huge.yaml", "distill.yaml"):
        code, out, _ = call(recipe, "--json", "--set", "evaluation.judge=null", *(
            ["--set", "teacher.teach=huge.yaml"] if recipe == "distill.yaml" else []
        ))  # fmt: skip
        plan = json.loads(out)
        assert code == 1 and not plan["measured"] and not plan["fits"]
        assert plan["seconds"] is plan["evaluations"] is None
        assert plan["networks"][0]["parameters"] > 10**12
        assert plan["needs"]["memory"] > 10**13
        assert {name for switch in plan["switches"] for name in switch["set"]} >= {"training.ema=null"}


# ---------------------------------------------------------------------------------------------------------- mistakes


def test_mistakes_are_one_line(here: Path) -> None:
    assert "did you mean gaussians?" in refuse("gausians")
    assert "training.step: unknown key" in refuse("gaussians", "--set", "training.step=3")
    assert "teacher: found neither load nor teach" in refuse(
        "distill.yaml", *sets(["teacher.teach=null", "evaluation.judge=null"])
    )
    assert "training.batch: found 8, expected a multiple of 3" in refuse(
        "teach.yaml", "--set", "training.accumulate=3", "--set", "evaluation.judge=null"
    )
    assert "training.optim.critic: no such network" in refuse("teach.yaml", "--set", "training.optim={critic: {}}")
    assert "found kind compare, expected teach or distill" in refuse("guidance")
    assert "found 12 stages, expected one training" in refuse("sd15-guidance8")
    assert "found no file edm-cifar10-32x32-cond-vp.pkl" in refuse("cifar10-cond")
    assert "nowhere" in refuse("gaussians", "--set", "teacher.load=nowhere")
    assert "evaluation.judge: found train, which needs evaluation.real or teacher.teach" in refuse(
        "gaussians", *sets(POINTS), "--set", "evaluation.judge=train"
    )


def test_python_prints_the_table_too_unless_it_is_to_be_quiet(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = unistep.plan("teach.yaml", overrides=["evaluation.judge=null"])
    assert plan.fits and "memory" in (told := capsys.readouterr().out) and "fits:" in told
    unistep.plan("teach.yaml", overrides=["evaluation.judge=null"], quiet=True)
    assert capsys.readouterr().out == ""
