"""Teaching and distilling on folders of pictures: what does not fit is said before any work, all of it at once."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

import unistep
from unistep.errors import UserError

NETWORK = {"type": "unet", "img_resolution": "auto", "img_channels": "auto", "model_channels": 8, "channel_mult": [1],
           "num_blocks": 1, "attn_resolutions": []}  # fmt: skip


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name in ("stripes", "waves"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for shade in range(4):
            Image.new("RGB", (8, 8), (60 * shade, 0, 0)).save(tmp_path / "pictures" / name / f"{shade}.png")
    return tmp_path / "pictures"


def write(pictures: Path, network: dict[str, Any] | None = None, **sections: Any) -> Path:
    recipe = {
        "kind": "teach", "data": {"kind": "folder", "path": str(pictures)}, "network": {**NETWORK, **(network or {})},
        "training": {"steps": 2, "batch": 4, "ema": None}, "evaluation": {"judge": None},
    }  # fmt: skip
    (pictures.parent / "tiny.yaml").write_text(yaml.safe_dump({**recipe, **sections}))
    return pictures.parent / "tiny.yaml"


def refuse(recipe: Path, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(UserError) as raised:
        unistep.teach(recipe, out=recipe.parent / "run", overrides=overrides, quiet=True)
    assert not (recipe.parent / "run").exists()
    return raised.value.lines


def config_of(recipe: Path, *overrides: str) -> dict[str, Any]:
    run = unistep.teach(recipe, out=recipe.parent / "run", overrides=overrides, quiet=True)
    return json.loads((run / "teacher" / "config.json").read_text())


def test_class_folders_are_never_ignored(pictures: Path) -> None:
    recipe = write(pictures)
    assert refuse(recipe) == (
        "network.label_dim: found nothing, but data has 2 classes (stripes, waves); expected 2 or auto, or 0 to learn "
        "without them",
    )
    assert refuse(recipe, "network.label_dim=3")[0] == (
        "network.label_dim: found 3, expected 2, the number of classes (stripes, waves), or auto"
    )
    assert "but data has no classes; expected 0" in refuse(recipe, "network.label_dim=2", "data.labels=none")[0]


def test_sizes_are_taken_from_the_images(pictures: Path) -> None:
    config = config_of(write(pictures), "network.label_dim=auto")
    assert {key: config["network"][key] for key in ("img_resolution", "img_channels", "label_dim")} == {
        "img_resolution": 8, "img_channels": 3, "label_dim": 2,
    }  # fmt: skip
    assert config["conditioner"]["names"] == ["stripes", "waves"]


@pytest.mark.parametrize(
    "override", ["network.label_dim=0", "data.labels=none", "data.labels=none network.label_dim=auto"]
)
def test_a_teacher_without_classes(pictures: Path, override: str) -> None:
    config = config_of(write(pictures), *override.split())
    assert config["conditioner"] is None
    assert config["network"].get("label_dim", 0) == 0


def test_all_that_does_not_fit_is_told_at_once(pictures: Path) -> None:
    recipe = write(pictures, {"img_resolution": 16, "img_channels": 1, "label_dim": 0}, guidance=2.0)
    assert refuse(recipe, "training.batch=9") == (
        "training.batch: found 9, expected at most 8, the number of images of data",
        "network.img_resolution: found 16, expected 8, as the images of data have it, or auto",
        "network.img_channels: found 1, expected 3, as the images of data have it, or auto",
        "guidance: found 2, expected 1: network.label_dim is 0 and there is no text",
    )


@pytest.mark.parametrize(
    "data", ["{kind: exact, count: 9}", "{kind: digits, limit: 9}", "{kind: folder, path: /nowhere}"]
)
def test_a_distillation_looks_at_its_images_before_its_teacher(data: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"training.batch: found 10, expected at most 9|/nowhere: found no folder"):
        unistep.distill(
            "gaussians-dmd2", out=tmp_path / "run", overrides=[f"data={data}", "training.batch=10"], quiet=True
        )
    assert not (tmp_path / "run").exists()
