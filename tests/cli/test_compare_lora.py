"""A comparison on a pipeline of diffusers in which one entry learns adapters and the other whole networks."""

import json
import sys
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import yaml

import unistep
from unistep.comparison.budget import EntryProfiler
from unistep.evaluation.comparison import Comparison
from unistep.networks.lora import Adapted
from unistep.recipes import load_recipe
from unistep.recipes.comparison import CompareRecipe
from unistep.recipes.entries import entry_recipe
from unistep.recipes.schema import DistillRecipe
from unistep.run.console import Talk
from unistep.run.teacher import starting_point
from unistep.teachers.checkpoint import load_generator
from unistep.teachers.load import load_teacher

sys.path.insert(0, str(Path(__file__).parents[1] / "teachers"))
import tiny_pipelines as tiny

SOLVER = {"name": "euler", "num_steps": 2}
BASE: dict[str, Any] = {
    "name": "base", "kind": "distill", "pairs": {"count": 8, "solver": SOLVER, "tile": 8},
    "method": {"name": "dmd", "regression": "l2"}, "training": {"steps": 4, "batch": 4, "preview_every": None},
    "evaluation": {
        "judge": "train", "judge_steps": 2, "real": {"kind": "digits"}, "samples": 1000, "samples_during_training": 130,
        "solver": SOLVER, "timed": False,
    },
}  # fmt: skip
COMPARE = {
    "name": "tiny", "kind": "compare", "budget": {"evaluations": 300}, "seeds": [0],
    "entries": {"whole": {}, "adapters": {"set": {"lora": {"rank": 2}}}},
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of grey pixels, the recipe that distils it, and the comparison."""
    folder = tmp_path_factory.mktemp("compare-lora")
    network = tiny.unet_2d(in_channels=1, out_channels=1)
    diffusers.DDPMPipeline(network, diffusers.DDPMScheduler()).save_pretrained(folder / "pipeline")
    teacher = {"load": f"diffusers:{folder / 'pipeline'}", "certify": False}  # random weights
    (folder / "base.yaml").write_text(json.dumps({**BASE, "teacher": teacher}))
    entries = {name: {"recipe": "{base}", **entry} for name, entry in COMPARE["entries"].items()}
    text = yaml.safe_dump({**COMPARE, "base": str(folder / "base.yaml"), "entries": entries})
    (folder / "compare.yaml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def compared(place: Path) -> Path:
    return unistep.compare(place / "compare.yaml", out=place / "compared", device="cpu", quiet=True)


def test_both_entries_stand_in_the_table_at_the_same_budget(compared: Path) -> None:
    result = Comparison.load(compared / "compare.json")
    rows = {row.name: row for row in result.rows if row.name in ("whole", "adapters")}
    assert set(rows) == {"whole", "adapters"} and not result.missing
    spent = [
        json.loads(next((compared / "shared").glob(f"{name}-*.json")).read_text()) for name in ("whole", "adapters")
    ]
    assert len({plan["steps"] for plan in spent}) == 1 and all(plan["steps"] > 4 for plan in spent)
    assert all(plan["step_evaluations"] + plan["pair_evaluations"] <= 300 for plan in spent)


def test_the_entry_is_an_adapter_on_a_teacher_that_stayed_as_it_was(place: Path, compared: Path) -> None:
    teacher = load_teacher(f"diffusers:{place / 'pipeline'}")
    for name in COMPARE["entries"]:
        described = json.loads((compared / name / "seed-0" / "generator" / "config.json").read_text())
        assert ("lora" in described) == (name == "adapters")
    z = torch.randn(2, *teacher.shape)
    with torch.no_grad():
        samples = [load_generator(compared / name / "seed-0")[0](z) for name in COMPARE["entries"]]
        fresh = load_teacher(f"diffusers:{place / 'pipeline'}")
        t = torch.full((2,), 500.0)
        assert torch.equal(fresh(z, t), teacher(z, t))
    assert not torch.equal(*samples)


def test_metering_adapters_leaves_the_teachers_weights_where_they_are(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adapters share the teacher's weights: moved to another device they would take the teacher along."""
    loaded = load_recipe(place / "compare.yaml")
    assert isinstance(loaded, CompareRecipe)
    recipe = entry_recipe(loaded, "adapters")
    assert isinstance(recipe, DistillRecipe)
    start = starting_point(recipe, tmp_path, torch.device("cpu"), Talk(quiet=True), True)
    monkeypatch.setattr(Adapted, "cpu", lambda network: pytest.fail("the teacher was moved"))
    assert EntryProfiler(recipe, start, torch.device("cpu")).training(4) is not None
