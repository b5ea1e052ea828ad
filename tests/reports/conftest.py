"""A run folder with everything in it, made up."""

import json
import math
from pathlib import Path

import pytest
import torch

from unistep.evaluation import Candidate, Evaluation, Row, Timing
from unistep.reports import write_samples


def timing(latency: float, rate: float) -> Timing:
    return Timing(latency_ms=latency, images_per_second=rate, batch=64, repeats=10, threads=2, device="CPU, 2 cores")


def figures(frechet: float, agreement: float) -> dict[str, float]:
    return {
        "frechet": frechet, "kid": frechet / 2000, "kid_sd": frechet / 9000, "precision": 0.81, "recall": 0.64,
        "density": 0.97, "coverage": 0.83, "agreement": agreement, "diversity": 0.94,
    }  # fmt: skip


@pytest.fixture(scope="session")
def image_evaluation() -> Evaluation:
    def row(name, role, frechet, agreement, **rest) -> Row:
        return Row(name=name, role=role, figures=figures(frechet, agreement), num_samples=10_000, **rest)

    rows = (
        row("real images, held out", "floor", 1.31, 0.937),
        row("teacher, 35 evaluations", "teacher", 4.62, 0.921, first_seed=0, nfe=35, timing=timing(148.0, 21.5),
            cached=True),
        row("teacher, one step", "teacher_one_step", 1322.0, 0.1, first_seed=0, nfe=1, timing=timing(4.3, 702.0)),
        row("regression only", "other", 14.7, 0.91, first_seed=0, nfe=1, timing=timing(4.2, 700.0)),
        row("student", "student", 8.93, 0.929, first_seed=0, nfe=1, timing=timing(4.24, 705.0)),
    )  # fmt: skip
    settings = {"kid": {"subset": 1000, "num_subsets": 50, "seed": 0}}
    return Evaluation(kind="images", rows=rows, reference="60,000 real images, 10,000 of them one by one",
                      judge="ab12" * 16, teacher="cd34" * 16, settings=settings,
                      versions={"torch": "2.13.0", "unistep": "0.1.0"})  # fmt: skip


@pytest.fixture(scope="session")
def point_evaluation() -> Evaluation:
    def row(name, role, modes, near, energy, **rest) -> Row:
        found = {"modes": modes, "high_quality": near, "energy": energy, "sliced_wasserstein": energy**0.5}
        return Row(name=name, role=role, figures=found, num_samples=4000, **rest)

    rows = (
        row("exact samples", "floor", 8, 0.9997, 0.0004),
        row("teacher", "teacher", 8, 0.999, 0.0006, first_seed=0, nfe=35, timing=timing(3.1, 90_000.0)),
        row("student", "student", 8, 0.871, 0.0021, first_seed=0, nfe=1, timing=timing(0.21, 2.5e6)),
    )
    return Evaluation(kind="points", rows=rows, reference="4,000 exact samples")


def metric_lines(steps: int = 1000) -> list[dict]:
    lines = []
    for step in range(1, steps + 1):
        noise = math.sin(7.3 * step) * 0.1
        lines.append({
            "step": step, "time": step / 10, "loss/dm": 0.4 + noise * 0.3, "loss/reg": 0.3 / step**0.4 * (1 + noise),
            "loss/denoise": 1.2 + 2 / step**0.5 + noise, "teacher_denoise": 1.1 + 2.2 / step**0.5,
            "grad_norm/generator": 0.5 + noise, "grad_norm/fake_score": 2 + 3 * noise,
            "lr/generator": 2e-4 * min(1, step / 100), "lr/fake_score": None,
        })  # fmt: skip
        if step % 100 == 0:
            lines.append({"step": step, "evaluation/frechet": 8.9 + 3000 / step, "evaluation/agreement": 0.9})
    return lines


RECIPE = """# Distils the embedded Fashion-MNIST teacher on a laptop.
name: fashion-mnist
kind: distill
teacher:
  load: embedded:fashion-mnist
method:
  name: dmd
  lambda_reg: 0.25
"""


def fill_run(folder: Path, evaluation: Evaluation, lines: list[dict]) -> Path:
    """Everything a run leaves behind."""
    (folder / "previews").mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE)
    record = {"starts": [{"unistep": "0.1.0", "git_commit": "9478aa5"}, {"git_commit": "5eb1f3a"}], "seed": 0,
              "teacher": {"source": "embedded:fashion-mnist", "sha256": "cd34" * 16}}  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = "the fake score denoises fresh samples 1.21 times worse than the teacher: it lags behind"
    alarm = {"step": 420, "name": "fake_score_lag", "words": words}
    (folder / "health.json").write_text(json.dumps({"alarms": [alarm], "ringing": []}))
    evaluation.save(folder / "evaluation.json")
    rows = [Candidate(name=row.name, sample=drawing(i), nfe=1) for i, row in enumerate(evaluation.rows[1:])]
    preview = write_samples(folder, rows[1:])
    preview.rename(preview.with_name("step-0001000.png"))
    write_samples(folder, rows)
    return folder


@pytest.fixture
def run_dir(tmp_path: Path, image_evaluation: Evaluation) -> Path:
    """A run with few metrics: drawing them takes the time."""
    return fill_run(tmp_path / "fashion-mnist", image_evaluation, [{"step": 1, "loss/dm": 0.5}])


@pytest.fixture(scope="session")
def full_run_dir(tmp_path_factory, image_evaluation: Evaluation) -> Path:
    """A run with every metric over a thousand steps."""
    return fill_run(tmp_path_factory.mktemp("runs") / "fashion-mnist", image_evaluation, metric_lines())


def drawing(kind: int):
    """Discs of a size that the seed tells, noisier for some kinds: stand-ins for samples."""

    def draw(seeds: torch.Tensor) -> tuple[torch.Tensor, None]:
        y, x = torch.meshgrid(torch.arange(28.0) - 13.5, torch.arange(28.0) - 13.5, indexing="ij")
        size = 4 + seeds % 9
        discs = 235 * torch.sigmoid(size[:, None, None] - (x**2 + y**2).sqrt())
        noise = torch.rand(len(seeds), 28, 28, generator=torch.Generator().manual_seed(kind)) * (0, 255, 30, 15)[kind]
        return (discs * (kind != 1) + noise).clamp(0, 255).to(torch.uint8)[:, None], None

    return draw
