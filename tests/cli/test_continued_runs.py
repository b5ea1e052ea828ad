"""A run is continued: more steps and other settings, as if it had been planned so; what must not change is refused."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn
from typer.testing import CliRunner

import unistep
from unistep.cli import app
from unistep.diffusion.process import EDMProcess
from unistep.errors import UserError
from unistep.evaluation import Evaluation
from unistep.recipes import load_recipe
from unistep.run import distill as distilling
from unistep.teachers import teacher_from_module
from unistep.teachers.teacher import Teacher
from unistep.training import Hooks, View

sys.path.insert(0, str(Path(__file__).parent))
from tiny_recipes import TEACH

BASE: dict[str, Any] = {
    "kind": "distill",
    "teacher": {"certify": False},  # its weights are random
    "pairs": {"count": 12, "tile": 4, "solver": {"name": "heun", "num_steps": 2}},
    "method": {"name": "dmd", "regression": "l2", "lambda_reg": 0.1},
    "training": {
        "steps": 3, "batch": 8, "pair_batch": 4, "log_every": 1, "device": "cpu", "precision": "fp32",
        "checkpoint": {"every_minutes": None}, "ema": {"half_life": 3},
        "optim": {"default": {"lr": 1e-2, "warmup": 2}},
    },
    "evaluation": {"solver": {"name": "euler", "num_steps": 1}},
}  # fmt: skip
PROGRESSIVE = {"method": {"name": "progressive", "start_steps": 4}, "method_steps": None}


class Network(nn.Module):
    """x_0 of points, with hidden units."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 2))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.layers(torch.cat([x_t / (1 + t[:, None]), t[:, None].log()], 1))


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    torch.manual_seed(0)
    return teacher_from_module(Network(), EDMProcess(0.02, 10.0), "x0", (2,))


@pytest.fixture(autouse=True)
def hooks(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Runs without pictures and reports; what is put into the mapping are the hooks of the next run."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(distilling, "build_hooks", lambda *_: Hooks(**given))
    monkeypatch.setattr(distilling, "evaluate_run", lambda *_: None)
    return given


def start(folder: Path, teacher: Teacher, steps: int = 3, **changes: Any) -> Path:
    """A run of so many steps."""
    folder.mkdir(exist_ok=True)
    training = {**BASE["training"], "steps": steps, **changes.pop("training", {})}
    (folder / "mine.yaml").write_text(yaml.safe_dump({**BASE, "training": training, **changes}))
    return unistep.distill(folder / "mine.yaml", out=folder / "run", teacher=teacher, quiet=True)


def go_on(run: Path, teacher: Teacher, steps: int | None = 2, **options: Any) -> Path:
    return unistep.distill(run, steps=steps, teacher=teacher, quiet=True, **options)


def state(run: Path) -> dict[str, Tensor]:
    (file,) = max((run / "checkpoints").glob("step-*")).glob("*.safetensors")
    return {"exported": torch.tensor(0), **load_file(file), **load_file(run / "generator" / "model.safetensors")}


def lines(run: Path) -> list[dict[str, float]]:
    """What the run logged, without what clocks say."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "per_s" not in k and "seconds" not in k} for line in found]


def require_the_same(found: Path, expected: Path) -> None:
    ours, theirs = state(found), state(expected)
    assert ours.keys() == theirs.keys() and lines(found) == lines(expected)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


# ------------------------------------------------------------------------------------------------ as if planned so


def test_a_continued_run_is_bit_for_bit_the_longer_one(teacher: Teacher, tmp_path: Path) -> None:
    """Networks, moments, fake score and average: at a constant rate 3 + 2 steps are 5."""
    run = go_on(start(tmp_path / "a", teacher), teacher)
    require_the_same(run, start(tmp_path / "b", teacher, 5))
    assert load_recipe(run / "recipe.yaml").training.steps == 5  # type: ignore[union-attr]
    assert load_recipe(run / "recipe-until-0000003.yaml").training.steps == 3  # type: ignore[union-attr]
    known = json.loads((run / "run.json").read_text())
    assert known["finished"] == {"step": 5} and [entry["from_step"] for entry in known["continued"]] == [3]


def test_a_falling_rate_spans_the_new_length(teacher: Teacher, tmp_path: Path, capsys: Any) -> None:
    optim = {"optim": {"default": {"lr": 0.01, "schedule": "linear", "final_fraction": 0.1}}}
    run = start(tmp_path / "a", teacher, 3, training=optim)
    capsys.readouterr()
    unistep.distill(run, steps=2, teacher=teacher)
    words = " ".join(capsys.readouterr().err.split())
    assert "continues" in words and "from step 3 to 5" in words
    assert "default linear over all 5 steps, so 0.0046 now (was 0.004) down to 0.001" in words
    rates = [line["lr/generator"] for line in lines(run) if "lr/generator" in line]
    straight = lines(start(tmp_path / "b", teacher, 5, training=optim))
    assert rates[3:] == [line["lr/generator"] for line in straight if "lr/generator" in line][3:]


def test_a_method_stays_in_its_last_round(teacher: Teacher, tmp_path: Path) -> None:
    run = go_on(start(tmp_path / "a", teacher, 4, **PROGRESSIVE), teacher)
    assert load_recipe(run / "recipe.yaml").method_steps == 4  # type: ignore[union-attr]
    require_the_same(run, start(tmp_path / "b", teacher, 6, **{**PROGRESSIVE, "method_steps": 4}))


@pytest.mark.parametrize("schedule", ["song", "ect"])
def test_the_levels_of_consistency_training_stay_at_their_last(schedule: str) -> None:
    from unistep.methods.consistency import ConsistencyTrainingConfig, EasyTuning, SongTraining

    config = ConsistencyTrainingConfig(name="consistency_training", schedule=schedule)  # type: ignore[arg-type]
    made_of: Any = type("MadeOf", (), {"teacher": type("T", (), {"process": EDMProcess(0.02, 10.0)}), "steps": 8})

    def points(step: int) -> Tensor:
        from unistep.training.random import StepRandom

        how = (SongTraining if schedule == "song" else EasyTuning)(made_of, config)
        return how.points(torch.zeros(4, 2), None, StepRandom(0, 0, "x"), step).s

    assert torch.equal(points(7), points(8)) and torch.equal(points(7), points(100))


def test_stages_go_on_with_the_last_one(teacher: Teacher, tmp_path: Path) -> None:
    stages = [{"until_step": 2, "set": {"pairs": {"count": 4}}},
              {"until_step": 3, "set": {"method": {"lambda_reg": 1.0}}}]  # fmt: skip
    run = go_on(start(tmp_path / "a", teacher, stages=stages), teacher)
    longer = [stages[0], {**stages[1], "until_step": 5}]
    require_the_same(run, start(tmp_path / "b", teacher, 5, stages=longer))
    run = go_on(run, teacher, 1, overrides={"training.batch": 4})
    found = load_recipe(run / "recipe.yaml")
    assert [stage.model_dump() for stage in found.stages] == [  # type: ignore[union-attr]
        *longer, {"until_step": 6, "set": {**stages[1]["set"], "training": {"batch": 4}}}
    ]  # fmt: skip
    require_the_same(run, start(tmp_path / "c", teacher, 6, stages=[s.model_dump() for s in found.stages]))  # type: ignore[union-attr]


def test_settings_that_may_change_do(teacher: Teacher, tmp_path: Path) -> None:
    run = start(tmp_path / "a", teacher)
    go_on(run, teacher, overrides=["training.optim.generator={lr: 1e-3}", "method.lambda_reg=0.5"])
    rates = {line["step"]: line["lr/generator"] for line in lines(run) if "lr/generator" in line}
    assert (rates[3], rates[4], rates[5]) == (0.01, 0.001, 0.001)


# ----------------------------------------------------------------------------------------------------- stop and go on


def test_the_same_command_goes_on_until_it_is_done(
    teacher: Teacher, tmp_path: Path, hooks: dict[str, Any], capsys: Any
) -> None:
    def preview(view: View) -> None:
        if view.step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    often = {"preview_every": 1}
    run = start(tmp_path / "a", teacher, training=often)
    hooks["preview"] = preview
    with pytest.raises(KeyboardInterrupt):
        go_on(run, teacher)
    hooks.clear()
    go_on(run, teacher)
    require_the_same(run, start(tmp_path / "b", teacher, 5, training=often))
    go_on(run, teacher, None)  # nothing to add: judged again, at most
    assert load_recipe(run / "recipe.yaml").training.steps == 5  # type: ignore[union-attr]
    go_on(run, teacher)
    assert load_recipe(run / "recipe.yaml").training.steps == 7  # type: ignore[union-attr]


def test_a_run_that_was_interrupted_may_be_made_longer(teacher: Teacher, tmp_path: Path, hooks: dict[str, Any]) -> None:
    hooks["preview"] = lambda view: os.kill(os.getpid(), signal.SIGINT) if view.step == 2 else None
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "a", teacher, training={"preview_every": 1})
    hooks.clear()
    run = go_on(tmp_path / "a" / "run", teacher)
    require_the_same(run, start(tmp_path / "b", teacher, 5, training={"preview_every": 1}))


# ----------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"training.seed": 7}, r"^training\.seed: found 7, expected 0 as in .*recipe\.yaml; a run is continued with"),
        ({"teacher.guidance": 2.0}, r"^teacher\.guidance: found 2\.0, expected 1\.0"),
        ({"method.dm_from_step": 1}, r"^method\.dm_from_step: found 1, expected 0 as in"),
        ({"pairs.tile": 8}, r"^pairs\.tile: found 8, expected 4"),
        ({"training.ema": None}, r"^training\.ema\.half_life: found nothing, expected 3"),
    ],
)
def test_what_must_not_change_is_refused_by_name(
    overrides: dict[str, Any], message: str, teacher: Teacher, finished: Path
) -> None:
    before = (finished / "recipe.yaml").read_text()
    with pytest.raises(UserError, match=message) as caught:
        go_on(finished, teacher, overrides=overrides)
    assert all("expected" in line for line in caught.value.lines) and (finished / "recipe.yaml").read_text() == before


@pytest.fixture(scope="module")
def finished(teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distilling, "build_hooks", lambda *_: Hooks())
        patch.setattr(distilling, "evaluate_run", lambda *_: None)
        return start(tmp_path_factory.mktemp("finished"), teacher)


def test_a_length_that_is_no_longer_is_refused(teacher: Teacher, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^pairs\.tile: .*\ntraining\.seed: found 7"):
        go_on(finished, teacher, overrides={"training.seed": 7, "pairs.tile": 8})
    with pytest.raises(UserError, match=r"training\.steps: found 2, expected more steps than the 3 that are done"):
        go_on(finished, teacher, None, overrides={"training.steps": 2})
    with pytest.raises(UserError, match=r"training\.batch: found a change, expected more steps than the 3 that are do"):
        go_on(finished, teacher, None, overrides={"training.batch": 4})
    with pytest.raises(UserError, match=r"steps: found 5 without a run, expected the folder of one to continue"):
        unistep.distill("gaussians", steps=5, quiet=True)
    with pytest.raises(UserError, match=r"out: found .*, expected nothing: the run .* is continued in its own folder"):
        go_on(finished, teacher, out=tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"steps: found 0, expected 1 or more"):
        go_on(finished, teacher, 0)


def test_a_run_without_its_last_checkpoint_is_not_begun_anew(teacher: Teacher, tmp_path: Path) -> None:
    run = start(tmp_path / "a", teacher)
    (run / "checkpoints").rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"checkpoints: found no checkpoint, expected the last one"):
        go_on(run, teacher)


# ------------------------------------------------------------------------------------------------------ the whole way


def test_a_finished_run_is_trained_judged_and_exported_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # with pictures and report
    small = [
        "fit.training={steps: 2, batch: 16}", "fit.samples=64", "fit.max_error=100", "training.steps=2",
        "training.batch=16", "training.preview_every=null", "evaluation.samples=128", "generator.weights=raw",
        "evaluation.solver={name: heun, num_steps: 2}", "evaluation.timed=false",
    ]  # fmt: skip
    run = unistep.distill("gaussians", overrides=small, out=tmp_path / "run", device="cpu", quiet=True)
    before = Evaluation.load(run / "evaluation.json").row("student")
    result = CliRunner().invoke(app, ["distill", str(run), "--steps", "2", "--set", "evaluation.samples=256"])
    assert result.exit_code == 0, result.output
    after = Evaluation.load(run / "evaluation.json").row("student")
    assert before is not None and after is not None and (before.num_samples, after.num_samples) == (128, 256)
    assert "from step 2 to 4" in " ".join(result.stderr.split())
    assert (run / "previews" / "step-0000004.png").is_file()
    assert [p.name for p in sorted((run / "checkpoints").iterdir())] == ["step-0000002", "step-0000004"]


def test_a_teacher_is_taught_further(tmp_path: Path) -> None:
    training = {"steps": 2, "batch": 4, "precision": "fp32", "device": "cpu", "log_every": 1}

    def taught(name: str, steps: int) -> Path:
        values = {**TEACH, "training": {**training, "steps": steps}, "evaluation": {}}
        return unistep.teach(values, out=tmp_path / name, quiet=True)

    run = unistep.teach(taught("a", 2), steps=2, quiet=True)
    straight = taught("b", 4)
    weights = [load_file(folder / "teacher" / "model.safetensors") for folder in (run, straight)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    with pytest.raises(UserError, match="its kind is teach; use `unistep teach"):
        unistep.distill(run, steps=2, quiet=True)
    with pytest.raises(UserError, match=r"^network\.model_channels: found 16, expected 8 as in"):
        unistep.teach(run, steps=2, overrides={"network.model_channels": 16}, quiet=True)
