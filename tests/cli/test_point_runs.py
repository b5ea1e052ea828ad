"""A run on exact points: a network fitted once and certified, refused where it is far off, judged beside another."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unistep
from unistep.errors import UserError
from unistep.recipes import load_recipe
from unistep.recipes.schema import DistillRecipe
from unistep.run.console import Talk
from unistep.run.fit import certified, fit_error
from unistep.run.teacher import starting_point
from unistep.teachers import load_teacher
from unistep.teachers.module import teacher_from_module
from unistep.types import Cond, bcast

CPU, QUIET = torch.device("cpu"), Talk(quiet=True)
TINY = [
    "fit.training={steps: 2, batch: 16}", "fit.samples=64", "fit.max_error=100", "training.steps=2",
    "training.batch=16", "training.preview_every=null", "evaluation.samples=128",
    "evaluation.samples_during_training=100", "evaluation.solver={name: heun, num_steps: 2}",
]  # fmt: skip


def tiny(*overrides: str) -> DistillRecipe:
    recipe = load_recipe("gaussians", [*TINY, *overrides])
    assert isinstance(recipe, DistillRecipe)
    return recipe


class Between(nn.Module):
    """(1 - share) mu_base + share mu_linear, the answer of a single Gaussian of the same spread."""

    def __init__(self, share: float):
        super().__init__()
        self.share, self.exact = share, load_teacher("gaussians:ring8")

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond = None) -> Tensor:
        process, variance = self.exact.process, self.exact.denoiser.sigma_data**2  # type: ignore[operator]
        alpha, sigma = process.alpha(t), process.sigma(t)
        linear = bcast(alpha * variance / (alpha**2 * variance + sigma**2), x_t) * x_t
        exact = self.exact(x_t, t, cond)
        return exact + self.share * (linear - exact)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_error_is_0_for_the_exact_denoiser_and_1_for_a_single_gaussian(share: float) -> None:
    teacher = load_teacher("gaussians:ring8")
    network = teacher_from_module(
        Between(share), process=teacher.process, prediction="x0", shape=teacher.shape, source="between"
    )
    assert fit_error(network, teacher, CPU) == pytest.approx(share, rel=1e-5, abs=0)


def test_a_fit_that_is_too_far_off_is_refused(tmp_path: Path) -> None:
    recipe = tiny("fit.max_error=1e-3")
    with pytest.raises(
        UserError, match=r"^fit\.max_error: found an error of \d\.\d{4}, expected at most 0\.001; raise"
    ):
        certified(recipe, load_teacher("gaussians:ring8"), tmp_path, CPU, QUIET)


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def test_the_certificate_is_that_of_the_call_that_trained(tmp_path: Path) -> None:
    starting_point(tiny(), tmp_path, CPU, QUIET, True)
    first = record(tmp_path)["fit"]
    assert first.keys() == {"error", "seconds"} and first["seconds"] > 0
    starting_point(tiny(), tmp_path, CPU, QUIET, True)
    assert record(tmp_path)["fit"] == first
    (tmp_path / "run.json").unlink()
    starting_point(tiny(), tmp_path, CPU, QUIET, True)
    assert record(tmp_path)["fit"]["error"] == first["error"]


def test_a_generator_beside_has_a_row_of_its_own(tmp_path: Path) -> None:
    run = unistep.distill(tiny(), out=tmp_path / "run", device="cpu", quiet=True)
    result = unistep.evaluate(run, overrides=[f"evaluation.beside={{itself: {run}}}"], device="cpu", quiet=True)
    rows = {row.name: row for row in result.rows}
    assert list(rows)[-2:] == ["itself", "one-step generator"]
    assert (rows["itself"].role, rows["itself"].nfe) == ("other", 1)
    assert rows["itself"].figures == rows["one-step generator"].figures
    stored = json.loads((run / "evaluation.json").read_text())
    assert [row["name"] for row in stored["rows"]] == list(rows)


@pytest.mark.parametrize("name", ["multiscale", "perceptual", "lpips"])
def test_a_distance_of_images_is_refused_for_points_before_the_pairs(name: str, tmp_path: Path) -> None:
    recipe = tiny("method.lambda_reg=1", f"method.regression={name}")
    with pytest.raises(
        UserError, match=rf"^method\.regression: found '{name}' for samples of shape \[2\], expected im"
    ):
        unistep.distill(recipe, out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "pairs").exists()


def test_points_of_a_network_are_drawn_and_not_measured(tmp_path: Path) -> None:
    first = unistep.distill(tiny(), out=tmp_path / "first", device="cpu", quiet=True)
    barely_taught = f"{{load: {first / 'teacher' / 'teacher'}, certify: false}}"
    network = tiny(f"teacher={barely_taught}")
    run = unistep.distill(network, out=tmp_path / "run", device="cpu", quiet=True)
    assert (run / "previews" / "evaluation.svg").is_file() and (run / "report.html").is_file()
    assert not (run / "evaluation.json").exists()


@pytest.mark.parametrize("setting", ["samples", "samples_during_training"])
def test_too_few_points_are_found_before_the_training(setting: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"evaluation.{setting}: found 50, expected at least 100"):
        unistep.distill(tiny(f"evaluation.{setting}=50"), out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "checkpoints").exists()
