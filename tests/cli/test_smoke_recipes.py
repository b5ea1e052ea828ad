"""The paper's recipes in their smoke forms: from an EDM checkpoint file to an evaluated student, every stage for real.

The networks are of the published classes, tiny and random, so the teacher is not certified and figures mean nothing.
"""

import json
import sys
from pathlib import Path

import pytest
import torch

import unistep
from unistep.networks import build_denoiser
from unistep.planning import plan as planning
from unistep.recipes import builtin_recipes, load_recipe
from unistep.recipes.smoke import smoke_forms

sys.path.insert(0, str(Path(__file__).parents[1] / "teachers"))
from edm_writer import write_checkpoint

SONG = {"img_channels": 3, "model_channels": 16, "channel_mult": [1, 1], "num_blocks": 1, "attn_resolutions": [8],
        "augment_dim": 9}  # fmt: skip
TINY = {
    "cifar10-cond": ("SongUNet", "song_unet", {**SONG, "img_resolution": 16, "label_dim": 10}),
    "cifar10-uncond": ("SongUNet", "song_unet", {**SONG, "img_resolution": 16, "label_dim": 0}),
    "imagenet64-cond": (
        "DhariwalUNet",
        "dhariwal_unet",
        {"img_resolution": 16, "img_channels": 3, "label_dim": 10, "model_channels": 16, "channel_mult": [1, 4],
         "num_blocks": 1, "attn_resolutions": [8]},
    ),
}  # fmt: skip


def checkpoint(folder: Path, name: str) -> Path:
    """A tiny network of the recipe's class in EDM's record layout, its last layer not zero."""
    network_class, kind, arguments = TINY[name]
    torch.manual_seed(0)
    denoiser = build_denoiser({"network": {"type": kind, **arguments}, "process": {"type": "edm"}})
    state = {key: value + 0.01 * torch.randn_like(value) for key, value in denoiser.state_dict().items()}
    published = {**arguments, "model_type": network_class}
    return write_checkpoint(folder / f"{name}.pkl", state, arguments=published, network_class=network_class)


@pytest.mark.parametrize("name", TINY)
def test_from_checkpoint_file_to_evaluated_student(tmp_path: Path, name: str) -> None:
    file = checkpoint(tmp_path, name)
    overrides = [f"teacher.load=edm:{file}", "teacher.certify=false", "evaluation.real.size=16"]
    run = unistep.distill(f"{name}:smoke", out=tmp_path / "run", overrides=overrides, device="cpu", quiet=True)
    found = json.loads((run / "evaluation.json").read_text())
    student = next(row for row in found["rows"] if row["role"] == "student")
    assert student["nfe"] == 1 and student["num_samples"] == 128 and student["figures"]["frechet"] > 0
    assert "report.html" in {entry.name for entry in run.iterdir()}
    generator, config, _ = unistep.load_generator(run)
    assert config["source"]["file"] == file.name
    size = TINY[name][2]["img_resolution"]
    labels = torch.tensor([0, 1]) if TINY[name][2]["label_dim"] else None
    assert generator(torch.randn(2, 3, size, size), labels).isfinite().all()


@pytest.mark.parametrize("name", smoke_forms(builtin_recipes()))
def test_a_smoke_form_computes_in_the_types_of_its_recipe(name: str) -> None:
    """Or what a run of hours does would not have been tried."""

    def types(recipe: str) -> tuple[object, ...]:
        found = load_recipe(recipe).model_dump()
        teacher, pairs = found["teacher"]["options"].get("dtype"), found["pairs"] and found["pairs"]["dtype"]
        return teacher, pairs, found["training"]["precision"]

    assert types(f"{name}:smoke") == types(name)


def test_a_smoke_form_is_planned_from_its_checkpoint_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "SECONDS", 0.2)
    file = checkpoint(tmp_path, "cifar10-uncond")
    overrides = [f"teacher.load=edm:{file}", "evaluation.real.size=16"]
    plan = unistep.plan("cifar10-uncond:smoke", out=tmp_path / "run", overrides=overrides, device="cpu", quiet=True)
    assert plan.recipe == "cifar10-uncond-smoke" and plan.fits
    stages = ["judge", "pairs", "training", "previews and figures", "evaluation"]
    assert [stage.name for stage in plan.stages] == stages
    assert plan.stages[1].evaluations == 32 * 7  # Heun of 4 steps
