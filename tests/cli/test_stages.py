"""Stages of a training: the same as changing the settings by hand, whatever stops the run; all else is refused."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

import unistep
from unistep.diffusion.process import EDMProcess
from unistep.errors import UserError
from unistep.losses.regression import l2, pseudo_huber
from unistep.methods import DMD, DMDConfig
from unistep.methods.inputs import MethodInputs
from unistep.networks.generator import Generator
from unistep.pairs import open_pairs
from unistep.recipes import load_recipe
from unistep.recipes.stages import stages_of
from unistep.run import distill as distilling
from unistep.teachers import teacher_from_module
from unistep.teachers.teacher import Teacher
from unistep.training import Hooks, Streams, TrainingConfig, View
from unistep.training.config import OptimConfig
from unistep.training.health import HealthMonitor
from unistep.training.loop import Trainer
from unistep.training.optim import learning_rate
from unistep.training.state import TrainState
from unistep.training.step import train_step

CPU = torch.device("cpu")
BASE: dict[str, Any] = {
    "kind": "distill",
    "teacher": {"certify": False},  # its weights are random
    "pairs": {"count": 12, "tile": 4, "solver": {"name": "heun", "num_steps": 2}},
    "method": {"name": "dmd", "regression": "l2", "lambda_reg": 0.1},
    "training": {
        "steps": 7, "batch": 8, "pair_batch": 4, "log_every": 1, "preview_every": 1, "device": "cpu",
        "checkpoint": {"every_minutes": None}, "ema": {"half_life": 3}, "precision": "fp32",
        "optim": {"default": {"lr": 1e-2, "schedule": "cosine", "warmup": 3}},
    },
    "evaluation": {"solver": {"name": "euler", "num_steps": 1}},
}  # fmt: skip
STAGES: list[dict[str, Any]] = [
    {"until_step": 2, "set": {"pairs": {"count": 4}}},
    {"until_step": 5, "set": {"method": {"lambda_reg": 1.0, "match_pairs": True}, "training": {"batch": 4}}},
    {"until_step": 7, "set": {"method": {"regression": "pseudo_huber", "max_fraction": 0.5},
                              "training": {"pair_batch": 6}}},
]  # fmt: skip


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


def written(folder: Path, **changes: Any) -> Path:
    (folder / "staged.yaml").write_text(yaml.safe_dump({**BASE, "stages": STAGES, **changes}))
    return folder / "staged.yaml"


def distil(folder: Path, teacher: Teacher, monkeypatch: pytest.MonkeyPatch, **hooks: Any) -> dict[str, Tensor]:
    """A run without pictures and report; the tensors of its last checkpoint."""
    monkeypatch.setattr(distilling, "build_hooks", lambda *_: Hooks(**hooks))
    monkeypatch.setattr(distilling, "evaluate_run", lambda *_: None)
    unistep.distill(written(folder), out=folder / "run", teacher=teacher, quiet=True)
    (file,) = max((folder / "run" / "checkpoints").glob("step-*")).glob("*.safetensors")
    return load_file(file)


@pytest.fixture(scope="module")
def whole(teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], list[Any]]:
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        return distil(folder, teacher, patch), lines(folder)


def lines(folder: Path) -> list[dict[str, float]]:
    """What the run logged, without what clocks say."""
    found = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "per_s" not in k and "seconds" not in k} for line in found]


# ------------------------------------------------------------------------------------------------------ what they are


def test_stages_are_one_training_whose_settings_are_changed_by_hand(
    whole: tuple[dict[str, Tensor], list[Any]], teacher: Teacher, tmp_path: Path
) -> None:
    """The same networks, optimisers and average from step 0 to 6, and no checkpoint anywhere."""
    recipe = load_recipe(written(tmp_path))
    pairs_of = {0: 4, 1: 12, 2: 12}
    methods = (
        DMDConfig(regression="l2", lambda_reg=0.1),
        DMDConfig(regression="l2", lambda_reg=1.0, match_pairs=True),
        DMDConfig(regression="pseudo_huber", lambda_reg=0.1, max_fraction=0.5),
    )
    rows, ends = ((8, 4), (4, 4), (8, 6)), (2, 5, 7)
    assert [stage.recipe.method for stage in stages_of(recipe)] == list(methods)  # type: ignore[arg-type]
    generator_of = DMDConfig(regression="l2").build(made_of(teacher))
    networks, state = generator_of.networks, None
    unistep.make_pairs(written(tmp_path), out=tmp_path / "run", teacher=teacher, quiet=True)
    for i, (config, (batch, pair_batch), end) in enumerate(zip(methods, rows, ends, strict=True)):
        distance = l2 if config.regression == "l2" else pseudo_huber
        inputs = made_of(teacher, networks["generator"], networks["fake_score"], distance)
        method = DMD(inputs, config)
        training = TrainingConfig.model_validate(BASE["training"] | {"batch": batch, "pair_batch": pair_batch})
        state = state or TrainState.start(method, training, HealthMonitor())
        state.method = method
        streams = Streams(
            seed=0, batch=batch, pair_batch=pair_batch,
            pairs=open_pairs(tmp_path / "run" / "pairs", first_seed=0, count=pairs_of[i]),
        )  # fmt: skip
        while state.step < end:
            train_step(state, streams, training, CPU)
    assert state is not None and state.tensors().keys() == whole[0].keys()
    for name, tensor in state.tensors().items():
        assert torch.equal(tensor, whole[0][name]), name


def made_of(teacher: Teacher, generator: Any = None, fake_score: Any = None, regression: Any = l2) -> MethodInputs:
    """The inputs of a method with networks that are there already, or with copies of the teacher."""

    def prepare(network: Any) -> Any:
        given = generator if isinstance(network, Generator) else fake_score
        return network if given is None else given

    return MethodInputs(teacher=teacher, copy=teacher.trainable_copy, prepare=prepare, steps=7, regression=regression)


def test_the_log_is_one_and_the_learning_rate_spans_the_whole(whole: tuple[dict[str, Tensor], list[Any]]) -> None:
    logged = [line for line in whole[1] if "lr/generator" in line]
    assert [line["step"] for line in logged] == [1, 2, 3, 4, 5, 6, 7]
    alone = rates_without_stages()
    assert [line["lr/generator"] for line in logged] == pytest.approx(alone)


def rates_without_stages() -> list[float]:
    """The learning rates of the same training without stages."""
    settings = OptimConfig.model_validate(BASE["training"]["optim"]["default"])
    return [learning_rate(settings, step, 7) for step in range(7)]


# ----------------------------------------------------------------------------------------------------- stop and go on


@pytest.mark.parametrize("step", [1, 2, 4, 5, 6])
def test_ctrl_c_in_any_stage_changes_nothing(
    step: int, whole: tuple[dict[str, Tensor], list[Any]], teacher: Teacher, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def preview(view: View) -> None:
        if view.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        distil(tmp_path, teacher, monkeypatch, preview=preview)
    assert not (tmp_path / "run" / "generator").exists()
    require_the_same(distil(tmp_path, teacher, monkeypatch), lines(tmp_path), whole)


@pytest.mark.parametrize("crash", [1, 3, 5, 6])
def test_a_crash_in_any_stage_changes_nothing(
    crash: int, whole: tuple[dict[str, Tensor], list[Any]], teacher: Teacher, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """As if killed in the preview of a step, which is not saved then."""

    class KilledError(Exception):
        pass

    def preview(view: View) -> None:
        if view.step == crash:
            raise KilledError

    monkeypatch.setattr("unistep.training.loop.Trainer.save", saving_unless(crash))
    with pytest.raises(KilledError):
        distil(tmp_path, teacher, monkeypatch, preview=preview)
    monkeypatch.undo()
    require_the_same(distil(tmp_path, teacher, monkeypatch), lines(tmp_path), whole)


def saving_unless(step: int) -> Any:
    """`Trainer.save`, but for one step."""
    save = Trainer.save
    return lambda run: None if run.state.step == step else save(run)


def require_the_same(found: dict[str, Tensor], log: list[Any], whole: tuple[dict[str, Tensor], list[Any]]) -> None:
    assert found.keys() == whole[0].keys() and log == whole[1]
    assert all(torch.equal(found[name], value) for name, value in whole[0].items())


def test_other_stages_are_another_recipe(teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distil(tmp_path, teacher, monkeypatch)
    changed = [STAGES[0], {"until_step": 7}]
    with pytest.raises(UserError, match=r"^stages: found .* expected .* as in .*recipe.yaml; restore the setting"):
        unistep.distill(written(tmp_path, stages=changed), out=tmp_path / "run", teacher=teacher, quiet=True)


# ----------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"until_step": 3}], r"stages: found until_step 3, expected growing numbers up to training.steps 7"),
        ([{"until_step": 5}, {"until_step": 5}, {"until_step": 7}], r"stages: found until_step 5, 5, 7, expected grow"),
        ([{"until_step": 7, "set": {"method": {"name": "dmd2"}}}], r"stages.0.set.method.name: found 'dmd2', expected"),
        ([{"until_step": 7, "set": {"method": {"dm_from_step": 3}}}], r"stages.0.set.method.dm_from_step: found 3"),
        ([{"until_step": 7, "set": {"training": {"steps": 9}}}], r"stages.0.set.training.steps: found 9, expected one"),
        ([{"until_step": 7, "set": {"training": {"ema": None}}}], r"stages.0.set.training.ema: found None, expected"),
        ([{"until_step": 7, "set": {"teacher": {"guidance": 2.0}}}], r"stages.0.set.teacher.guidance: found 2.0, ex"),
        ([{"until_step": 7, "set": {"pairs": {"tile": 8}}}], r"stages.0.set.pairs.tile: found 8, expected one of meth"),
        (
            [{"until_step": 7, "set": {"pairs": {"count": "8"}}}],
            r"stages.0.set: pairs.count: found '8', expected a who",
        ),
        ([{"until_step": 7, "set": {"method": {"max_fraction": 0.01}}}], r"stages.0.set: method.min_fraction: found"),
        ([{"until_step": 7, "set": {"pairs": {"count": 1_000_001}}}], r"stages.0.set: pairs.first_seed: found seeds"),
    ],
)
def test_what_no_stage_may_say(stages: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_recipe(written(tmp_path, stages=stages))
    assert "\n" not in str(caught.value)


def test_a_gan_does_not_begin_in_the_middle(tmp_path: Path) -> None:
    method = {"name": "dmd2", "lambda_gan": 0.0}
    stages = [{"until_step": 3}, {"until_step": 7, "set": {"method": {"lambda_gan": 0.1}}}]
    with pytest.raises(UserError, match=r"stages.1: found a method that begins or ends to learn from real images"):
        load_recipe(written(tmp_path, method=method, stages=stages, data={"kind": "digits"}))


def test_what_a_later_stage_lacks_is_found_before_the_first(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for settings, message in (
        ({"method": {"regression": "multiscale"}}, "found 'multiscale' for samples of shape"),
        ({"training": {"pair_batch": 5, "accumulate": 2}}, "training.pair_batch: found 5, expected a multiple of 2"),
    ):
        stages = [{"until_step": 3}, {"until_step": 7, "set": settings}]
        with pytest.raises(UserError, match=message):
            unistep.distill(written(tmp_path, stages=stages), out=tmp_path / "run", teacher=teacher, quiet=True)
    assert not (tmp_path / "run" / "checkpoints").exists() and not (tmp_path / "run" / "pairs").exists()


def test_a_comparison_has_no_stages(tmp_path: Path) -> None:
    (tmp_path / "compare.yaml").write_text(
        yaml.safe_dump(
            {"kind": "compare", "base": str(written(tmp_path)), "budget": {"evaluations": 1}, "entries": {"only": {}}}
        )  # fmt: skip
    )
    with pytest.raises(UserError, match="entries.only: stages: found 3, expected none: lengths follow from the budget"):
        unistep.compare(tmp_path / "compare.yaml", out=tmp_path / "out", quiet=True)
