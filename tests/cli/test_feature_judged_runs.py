"""Runs judged by a network that is no classifier of the data: references kept, nothing about classes, names honest."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import unistep
from unistep.errors import UserError
from unistep.evaluation.extractors.pretrained import FeatureJudge
from unistep.networks import build_denoiser
from unistep.recipes import load_recipe
from unistep.run import extractors as judges
from unistep.teachers.checkpoint import save_denoiser

RECIPE = """
kind: distill
teacher: {load: TEACHER, certify: false} # random weights
pairs: {count: 8, solver: {name: heun, num_steps: 2}, tile: 4}
method: {name: dmd, regression: l2}
training: {steps: 2, batch: 4, evaluate_every: 1, optim: {default: {lr: 1e-4}}}
evaluation:
  judge: efficientnet-lite0
  real: {kind: digits, limit: 200}
  samples: 100
  samples_during_training: 32
  solver: {num_steps: 2}
"""
NETWORK = {"type": "unet", "img_resolution": 8, "img_channels": 1, "model_channels": 16, "channel_mult": [1],
           "num_blocks": 1, "attn_resolutions": [], "label_dim": 10}  # fmt: skip


class Quarters(nn.Module):
    """The means of an image's four quarters."""

    looked = 0

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1 / 255), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        Quarters.looked += len(images)
        return self.scale * F.adaptive_avg_pool2d(images[:, :1].float(), 2).flatten(1)


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quick to ask; whatever else is not the real judge's goes its way."""
    make = lambda spec: FeatureJudge(title=spec, network=Quarters(), sha256="e" * 64, references={})  # noqa: E731
    monkeypatch.setattr(judges, "load_feature_judge", make)


def write_recipe(folder: Path) -> Path:
    torch.manual_seed(0)
    config = {"network": NETWORK, "process": {"type": "edm"}, "sigma_data": 0.5, "shape": [1, 8, 8],
              "conditioner": {"type": "labels", "num_classes": 10}, "codec": {"type": "pixels"}}  # fmt: skip
    save_denoiser(folder / "teacher", build_denoiser(config), config)
    path = folder / "mine.yaml"
    path.write_text(RECIPE.replace("TEACHER", str(folder / "teacher")))
    return path


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("judged"))


def test_a_run_is_judged_without_classes_and_says_by_what(recipe: Path, tmp_path: Path) -> None:
    run = unistep.distill(recipe, out=tmp_path / "run", quiet=True)
    found = json.loads((run / "evaluation.json").read_text())
    floor, teacher, *_, student = found["rows"]
    assert floor["role"] == "floor" and floor["num_samples"] == 100
    for row in (floor, teacher, student):
        assert set(row["figures"]) == {"frechet", "diversity"}
    assert (found["judge"], found["judge_title"], found["distance"]) == ("e" * 64, "efficientnet-lite0", "FD")
    assert found["reference"] == "200 real images of digits, train, 200 of them one by one"
    assert found["notes"][0].startswith("left out: kid (needs 1,000), prdc (needs 1,000)")
    report = (run / "report.html").read_text()
    for words in ("judge: efficientnet-lite0 (eeeeeeeeeeee)", found["reference_sha256"][:16], "left out: kid"):
        assert words in report
    assert ">FD \u2193<" in report and "FID" not in report and ">class" not in report
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluated = [set(line) for line in lines if "evaluation/frechet" in line]
    assert evaluated and not any("evaluation/agreement" in names for names in evaluated)
    assert json.loads((run / "run.json").read_text())["weights"]["exported"] in ("ema", "raw")

    files = sorted((run / "reference").iterdir())
    assert [file.name.split("-")[0] for file in files] == ["test", "train"]
    Quarters.looked = 0
    again = unistep.evaluate(run, quiet=True)
    assert again.reference_sha256 == found["reference_sha256"]
    assert Quarters.looked < 3 * 100  # the student's samples and trials; real images and the teacher's are stored
    unistep.evaluate(run, overrides=["evaluation.real.limit=100"], quiet=True)
    assert len(list((run / "reference").iterdir())) == 4

    np.savez(tmp_path / "ref.npz", mu=np.zeros(4), sigma=np.eye(4))
    published = unistep.evaluate(
        run, overrides=["evaluation.real=null", f"evaluation.reference={tmp_path / 'ref.npz'}"], quiet=True
    )
    assert [row.role for row in published.rows] == ["teacher", "teacher_one_step", "student"]
    assert all(set(row.figures) == {"frechet"} for row in published.rows)


def test_mistakes_are_found_before_anything_is_made(recipe: Path, tmp_path: Path) -> None:
    def refuse(words: str, *overrides: str) -> None:
        with pytest.raises(UserError, match=words):
            unistep.distill(recipe, out=tmp_path / "run", overrides=overrides, quiet=True)
        assert not (tmp_path / "run" / "pairs").exists()

    refuse(r"evaluation\.real: found images of \[1, 16, 16\], expected \[1, 8, 8\]", "evaluation.real.size=16")
    refuse(r"evaluation\.real: found 3 images, expected at least 100", "evaluation.real.limit=3")
    refuse(r"evaluation\.real: found 1 image, expected at least 2", "evaluation.real.limit=1")
    refuse(r"evaluation\.samples: found 1, expected at least 8; fewer make no figure", "evaluation.samples=1")
    np.savez(tmp_path / "ref.npz", mu=np.zeros(3), sigma=np.eye(3))
    statistics = f"evaluation.reference={tmp_path / 'ref.npz'}"
    refuse("found statistics of 3 features, expected 4", "evaluation.real=null", statistics)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["evaluation.real=null"], r"evaluation\.real: found nothing, expected the section of a data set"),
        (["evaluation.reference=x.npz"], "found both real and reference, expected one of them"),
        (["evaluation.real.split=train"], r"real\.split: found train, expected nothing"),
        (["evaluation.judge=embedded:fashion-mnist"], "judge embedded:fashion-mnist brings its own images"),
    ],
)
def test_recipes_that_say_too_little_or_too_much(recipe: Path, overrides: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_recipe(recipe, overrides)


def test_edms_seeds_are_judged_beside_pairs_from_elsewhere(recipe: Path) -> None:
    protocol = ["evaluation.samples=50000", "evaluation.first_seed=0"]
    with pytest.raises(UserError, match=r"pairs\.first_seed: found seeds 0\.\.7"):
        load_recipe(recipe, protocol)
    assert load_recipe(recipe, [*protocol, "pairs.first_seed=1000000"]).evaluation.samples == 50_000


def test_a_teacher_is_judged_by_the_images_it_learns_from(tmp_path: Path) -> None:
    path = tmp_path / "teach.yaml"
    path.write_text(f"""
kind: teach
about: a test
data: {{kind: digits, split: train, limit: 50}}
network: {json.dumps(NETWORK)}
training: {{steps: 1, batch: 4, evaluate_every: 1}}
evaluation: {{judge: efficientnet-lite0, samples_during_training: 20, solver: {{num_steps: 2}}}}
""")
    run = unistep.teach(path, out=tmp_path / "run", quiet=True)
    assert len(list((run / "reference").glob("train-*.safetensors"))) == 1
    assert "evaluation/frechet" in (run / "metrics.jsonl").read_text()
