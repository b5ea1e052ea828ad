"""All that recipe, data and teacher can tell is told before the first second of work, every mistake at once."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch import Tensor, nn

import unistep
from unistep.diffusion.process import DiscreteVPProcess
from unistep.errors import UserError
from unistep.teachers import teacher_from_module
from unistep.training import loop

PLACES = {"generator.init": "nowhere", "evaluation.beside": {"other": "nowhere"}}


@pytest.fixture(autouse=True)
def nothing_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: Any, **options: Any) -> None:
        raise AssertionError("found work, expected checks alone")

    for place in ("run.teach", "run.fit", "run.distill"):
        monkeypatch.setattr(f"unistep.{place}.train", never)
    monkeypatch.setattr("unistep.run.pairs.generate_pairs", never)
    monkeypatch.setattr("unistep.run.extractors.train_judge", never)
    assert loop.train is not never


def mistakes_of(call: Any, out: Path, recipe: str, overrides: dict[str, Any]) -> list[str]:
    with pytest.raises(UserError) as caught:
        call(recipe, out=out, overrides=overrides, device="cpu", quiet=True)
    assert not out.exists()
    return list(caught.value.lines)


def begins(lines: list[str], *expected: str) -> None:
    missing = [words for words in expected if not any(line.startswith(words) for line in lines)]
    assert not missing, (missing, lines)
    assert len(lines) == len(expected), lines


def test_distilling_from_a_teacher_that_is_yet_to_be_taught(tmp_path: Path) -> None:
    overrides = {
        **PLACES,
        "method.perceptual_network": "nowhere",
        "training": {"batch": 33, "accumulate": 2, "optim": {"genrator": {"lr": 1.0}}},
        "teacher.guidance": 2.0,
        "evaluation.samples": 5,
        "evaluation.samples_during_training": 7,
        "evaluation.prompts": "nowhere.txt",
    }
    begins(
        mistakes_of(unistep.distill, tmp_path / "run", "digits", overrides),
        "training.batch: found 33, expected a multiple of 2 (ranks times training.accumulate)",
        "generator.init: nowhere/config.json: not found",
        "perceptual network: found no folder nowhere",
        "training.optim.genrator: no such network; expected one of default, fake_score, generator",
        "evaluation.prompts: found nowhere.txt, expected null: digits-teacher reads no text",
        "evaluation.beside.other: nowhere/config.json: not found",
        "evaluation.samples: found 5, expected at least 20; fewer make no figure",
        "evaluation.samples_during_training: found 7, expected at least 100: fewer make no distance",
    )


def test_distilling_a_loaded_teacher(tmp_path: Path) -> None:
    place = tmp_path / "no-images"
    overrides = {
        "method": {"name": "dmd2", "num_steps": 2},
        "generator": {"u_init": 0.1, "sigma_init": None},
        "data": {"kind": "folder", "path": str(place)},
        "evaluation.samples": 5,
        "evaluation.solver": {"name": "heun", "options": {"S_chrun": 1}},
    }
    begins(
        mistakes_of(unistep.distill, tmp_path / "run", "fashion-mnist", overrides),
        f"{place}: found no folder, expected one with images",
        "generator: found a start at t = ",
        "sampler.S_chrun: found this option for heun, which knows S_churn",
        "evaluation.samples: found 5, expected at least 20",
    )


def test_images_of_another_shape_and_other_classes_than_the_teachers(tmp_path: Path) -> None:
    for data, words in (
        ({"kind": "digits"}, "data: found images of [1, 8, 8], expected [1, 28, 28], as the teacher makes them"),
        ({"kind": "exact", "count": 512}, "data.kind: found exact, expected image files"),
    ):
        lines = mistakes_of(unistep.distill, tmp_path / "run", "fashion-mnist-dmd2", {"data": data})
        assert lines[0].startswith(words)


def test_shape_and_classes_of_images_are_told_together(tmp_path: Path) -> None:
    overrides = {"data": {"kind": "digits", "labels": "none"}, "evaluation.samples": 5}
    begins(
        mistakes_of(unistep.distill, tmp_path / "run", "fashion-mnist-dmd2", overrides),
        "data: found images of [1, 8, 8], expected [1, 28, 28]",
        "data: found 0 classes, expected 10, those of the teacher",
        "evaluation.samples: found 5, expected at least 20",
    )


class Flat(nn.Module):
    """A network that names no bottleneck."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.layer(x)


@pytest.mark.parametrize(
    ("lora", "expected"),
    [
        (None, "method: found a network Flat without a bottleneck"),
        ({"rank": 2, "target_modules": ["layer"]}, "lora: found adapters with a method that has a discriminator"),
    ],
)
@pytest.mark.parametrize("method", ["dmd2", "gan", "sida"])
def test_a_discriminator_that_cannot_be_is_told_beside_other_mistakes(
    method: str, lora: dict[str, Any] | None, expected: str, tmp_path: Path
) -> None:
    own = teacher_from_module(Flat(), DiscreteVPProcess.linear(), "eps", (1, 8, 8))
    overrides = {
        "data": {"kind": "digits"}, "method": {"name": method}, "lora": lora, "teacher.guidance": 2.0,
        "generator": {"sigma_init": 2.0}, "evaluation": {"judge": None, "solver": {"name": "ddim", "num_steps": 2}},
        "training.optim": {"default": {"lr": 1e-3}},
    }  # fmt: skip

    def call(*given: Any, **how: Any) -> None:
        unistep.distill(*given, teacher=own, **how)

    lines = mistakes_of(call, tmp_path / "run", "fashion-mnist-dmd2", overrides)
    assert any(line.startswith(expected) for line in lines), lines
    assert any(line.startswith("guidance: found 2,") for line in lines), lines
    assert any(line.startswith("generator.sigma_init: found 2.0") for line in lines), lines


def test_networks_larger_than_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unistep.networks.build.held_by_machine", lambda: 1000)
    begins(
        mistakes_of(unistep.distill, tmp_path / "run", "gaussians", {"evaluation.samples": 60}),
        "fit.network: found sizes that make ",
        "evaluation.samples: found 60, expected at least 100",
    )
    begins(
        mistakes_of(unistep.teach, tmp_path / "run", "digits-teacher", {"init": "nowhere"}),
        "network: found sizes that make ",
        "init: nowhere/config.json: not found",
    )


@pytest.mark.parametrize(
    ("network", "expected"),
    [({"widht": 8}, "fit.network.widht: unknown key"), ({"width": 10**7}, "fit.network.width: found 10000000")],
)
def test_the_network_of_a_fit_is_named_by_its_own_section(network: Any, expected: str, tmp_path: Path) -> None:
    overrides = {"fit.network": {"type": "mlp", "dim": 2, **network}}
    begins(mistakes_of(unistep.distill, tmp_path / "run", "gaussians", overrides), expected)


def test_images_to_compare_with_are_named_by_their_own_section(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (tmp_path / "images" / split / label).mkdir(parents=True)
        Image.new("L", (28, 28)).save(tmp_path / "images" / split / "cat" / "a.png")
    real = {"kind": "folder", "path": str(tmp_path / "images"), "labels": "folders"}
    overrides = {"evaluation": {"judge": "efficientnet-lite0", "real": real}}
    lines = mistakes_of(unistep.distill, tmp_path / "run", "fashion-mnist", overrides)
    assert not any(line.startswith("data") for line in lines) and "evaluation.real.labels: none" in lines[0]


def test_points(tmp_path: Path) -> None:
    overrides = {
        "fit": {"network": {"dim": 3}, "training": {"accumulate": 3}},
        "evaluation": {"samples": 60, "samples_during_training": 60},
        "data": {"kind": "exact", "count": 20},
        "method": {"name": "gan"},
        "training.optim.fake_score": None,
    }
    begins(
        mistakes_of(unistep.distill, tmp_path / "run", "gaussians", overrides),
        "fit.training.batch: found 512, expected a multiple of 3",
        "training.batch: found 256, expected at most 20, the number of images of data",
        "fit.network: found {'type': 'mlp', 'dim': 3",
        "evaluation.samples: found 60, expected at least 100",
        "evaluation.samples_during_training: found 60, expected at least 100",
    )


def test_every_stage(tmp_path: Path) -> None:
    stages = [
        {"until_step": 2, "set": {}},
        {"until_step": 4, "set": {"method": {"perceptual_network": "nowhere"}, "training": {"batch": 5}}},
    ]
    overrides = {"stages": stages, "training": {"steps": 4, "accumulate": 2}, "method.dm_from_step": 0}
    overrides |= {"method.fake_score_from_step": 0}
    begins(
        mistakes_of(unistep.distill, tmp_path / "run", "fashion-mnist", overrides),
        "training.batch: found 5, expected a multiple of 2",
        "perceptual network: found no folder nowhere",
    )


def test_teaching(tmp_path: Path) -> None:
    overrides = {
        "training": {"batch": 33, "accumulate": 2, "optim": {"denoser": {"lr": 1.0}}},
        "init": "nowhere",
        "evaluation.samples_during_training": 7,
    }
    begins(
        mistakes_of(unistep.teach, tmp_path / "run", "digits-teacher", overrides),
        "training.batch: found 33, expected a multiple of 2",
        "evaluation.samples_during_training: found 7, expected at least 100",
        "init: nowhere/config.json: not found",
        "training.optim.denoser: no such network; expected one of default, denoiser",
    )


def test_pairs_need_no_more_than_teacher_and_solver(tmp_path: Path) -> None:
    overrides = {"teacher": {"load": "gaussians:ring9"}, "pairs": None}
    begins(
        mistakes_of(unistep.make_pairs, tmp_path / "run", "gaussians", overrides),
        "pairs: found nothing in recipe gaussians, expected a section",
        "teacher: found 'gaussians:ring9', expected one of ring8",
    )
    solver = {"pairs.solver": {"name": "heun", "options": {"S_chrun": 1}}, "teacher.guidance": 2.0}
    lines = mistakes_of(unistep.make_pairs, tmp_path / "run", "gaussians", {**solver, "evaluation.samples": 1})
    assert lines[-1].startswith("sampler.S_chrun: found this option for heun")
    assert len(lines) == 2


def test_a_comparison_says_which_entries_are_wrong(tmp_path: Path) -> None:
    recipe = {
        "name": "mine",
        "kind": "compare",
        "base": "digits",
        "budget": {"evaluations": 10**6},
        "set": {"evaluation": {"samples": 5}},
        "entries": {
            "a": {},
            "b": {"set": {"training": {"optim": {"genrator": {"lr": 1.0}}}}},
            "c": {"set": {"training": {"optim": {"genrator": {"lr": 1.0}}}}},
        },
    }
    begins(
        mistakes_of(unistep.compare, tmp_path / "run", recipe, {}),  # type: ignore[arg-type]
        "mine: every entry: evaluation.samples: found 5, expected at least 20",
        "mine: entries.b, c: training.optim.genrator: no such network",
    )


def test_mistakes_of_all_entries_are_told(tmp_path: Path) -> None:
    entries = {"a": {"set": {"training": {"batch": "many"}}}, "b": {"set": {"method": {"lambda_rge": 1}}}}
    recipe = {"name": "m", "kind": "compare", "base": "digits", "budget": {"minutes": 1.0}, "entries": entries}
    begins(
        mistakes_of(unistep.compare, tmp_path / "run", recipe, {}),  # type: ignore[arg-type]
        "m: entries.a: training.batch: found 'many', expected a whole number",
        "m: entries.b: method.lambda_rge: unknown key; did you mean lambda_reg?",
    )
