"""Evaluation of several models: one pass, floor, caches and their refusal, JSON there and back, clear errors."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from unistep.errors import UserError
from unistep.evaluation import (
    Candidate,
    Evaluation,
    Identity,
    Modes,
    all_metrics,
    evaluate_models,
    evaluate_points,
    figures,
    judge_samples,
    load_features,
    quick_metrics,
    save_features,
)
from unistep.evaluation.measure import observe
from unistep.evaluation.metrics.kid import KernelDistance
from unistep.evaluation.result import Row
from unistep.evaluation.throughput import Timing

N = 1200


def some_metrics(reference) -> list:
    """All metrics, on fewer and smaller subsets."""
    found = [m for m in all_metrics(reference) if m.name != "kid"]
    return [*found, KernelDistance(reference, subset=300, num_subsets=5)]


def broken(sample):
    """A sampler of one class and little contrast."""

    def draw(seeds: Tensor) -> tuple[Tensor, Tensor]:
        images, labels = sample(seeds)
        return images // 8, labels

    return draw


@pytest.fixture(scope="module")
def evaluation(judge) -> Evaluation:
    rows = [
        Candidate(name="teacher", sample=judge.sample, nfe=35, role="teacher", latency=lambda batch: None),
        Candidate(name="student", sample=broken(judge.sample), nfe=1, role="student"),
    ]
    return evaluate_models(rows, judge, num_samples=N, batch=500, metrics=some_metrics, teacher="t" * 64)


def test_rows_are_judged_alike_and_in_order(evaluation: Evaluation) -> None:
    assert [row.role for row in evaluation.rows] == ["floor", "teacher", "student"]
    floor, teacher, student = evaluation.rows
    assert abs(floor.figures["frechet"] - teacher.figures["frechet"]) < 0.05
    assert student.figures["frechet"] > 10 * teacher.figures["frechet"]
    assert student.figures["kid"] > teacher.figures["kid"] + 3 * teacher.figures["kid_sd"]
    assert student.figures["diversity"] < 0.3 < 0.9 < teacher.figures["diversity"]
    assert teacher.figures["agreement"] == 1
    assert student.figures["agreement"] < 0.5
    assert floor.figures["agreement"] == 0.875  # the judge's accuracy on held-out images
    assert {"precision", "recall", "density", "coverage"} <= set(student.figures)


def test_counts_seeds_and_settings_stand_in_the_result(evaluation: Evaluation) -> None:
    assert [(row.num_samples, row.first_seed) for row in evaluation.rows] == [(N, None), (N, 0), (N, 0)]
    assert evaluation.settings["kid"] == {"subset": 300, "num_subsets": 5, "seed": 0}
    assert evaluation.settings["prdc"]["k"] == 5
    assert evaluation.judge == "f" * 64
    assert {"torch", "unistep", "python"} <= set(evaluation.versions)
    teacher, student = evaluation.row("teacher"), evaluation.row("student")
    assert teacher and teacher.timing and teacher.nfe == 35
    assert student and student.timing is None


def test_json_there_and_back(evaluation: Evaluation, tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    evaluation.save(path)
    assert Evaluation.load(path) == evaluation
    assert [p.name for p in tmp_path.iterdir()] == ["evaluation.json"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no readable JSON"),
        ("{}", "found no evaluation of format"),
        ('{"format": "unistep-evaluation/1"}', "incomplete evaluation"),
        ('{"format": "unistep-evaluation/1", "rows": [{"timing": null, "speed": 1}]}', "incomplete evaluation"),
    ],
)
def test_foreign_json_is_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(UserError, match=words):
        Evaluation.load(tmp_path / "evaluation.json")
    with pytest.raises(UserError, match="unistep evaluate"):
        Evaluation.load(tmp_path / "nothing.json")


def test_numbers_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    row = Row(name="x", role="other", figures={"frechet": math.nan}, num_samples=1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        Evaluation(kind="images", rows=(row,), reference="").save(tmp_path / "evaluation.json")
    assert not list(tmp_path.iterdir())


def test_batches_and_merging_change_nothing(judge) -> None:
    reference = judge.reference("train")
    whole, halves = some_metrics(reference), [some_metrics(reference), some_metrics(reference)]
    judge_samples(judge.sample, judge, whole, num_samples=N, batch=N)
    judge_samples(judge.sample, judge, halves[0], num_samples=700, batch=300)
    judge_samples(judge.sample, judge, halves[1], num_samples=500, first_seed=700, batch=77)
    for mine, other in zip(*halves, strict=True):
        mine.merge(other)
    assert figures(halves[0]) == pytest.approx(figures(whole), rel=1e-9)


def test_each_seed_is_sampled_once(judge) -> None:
    asked: list[int] = []

    def sample(seeds: Tensor) -> tuple[Tensor, Tensor]:
        asked.extend(seeds.tolist())
        return judge.sample(seeds)

    judge_samples(sample, judge, quick_metrics(judge.reference("train")), num_samples=25, first_seed=7, batch=10)
    assert asked == list(range(7, 32))


def test_figures_that_need_more_samples_are_left_out_and_named(judge) -> None:
    rows = [Candidate(name="student", sample=judge.sample, nfe=1)]
    found = evaluate_models(rows, judge, num_samples=900)
    assert set(found.rows[-1].figures) == {"frechet", "agreement", "diversity"}
    assert found.notes == ("left out: kid (needs 1,000), prdc (needs 1,000), because there are 900 samples",)


def test_mistakes_of_samplers_are_named(judge) -> None:
    images, labels = judge.sample(torch.arange(4))
    with pytest.raises(UserError, match="images of torch.float32, expected uint8"):
        observe(images.float(), labels, judge)
    with pytest.raises(UserError, match="3 labels for 4 images"):
        observe(images, labels[:3], judge)
    with pytest.raises(UserError, match="found 4 samples of 5 seeds"):
        judge_samples(lambda seeds: (images, labels), judge, [], num_samples=5)
    twin = Candidate(name="a", sample=judge.sample, nfe=1)
    with pytest.raises(UserError, match="several rows named a"):
        evaluate_models([twin, twin], judge)
    assert observe(images, None, judge).labels.tolist() == [-1] * 4


IDENTITY = Identity(teacher="a" * 64, judge="f" * 64, first_seed=0, sampler={"name": "heun", "num_steps": 18})


@pytest.fixture
def kept(judge, tmp_path: Path) -> Path:
    seen = judge_samples(judge.sample, judge, [], num_samples=N)
    save_features(tmp_path / "teacher.safetensors", seen, IDENTITY)
    return tmp_path / "teacher.safetensors"


def test_a_kept_row_gives_the_same_figures_without_sampling(judge, tmp_path: Path) -> None:
    fresh = Candidate(name="Teacher, full", sample=judge.sample, nfe=35, identity=IDENTITY)
    first = evaluate_models(
        [fresh], judge, num_samples=N, keep_features=tmp_path, metrics=quick_metrics, with_floor=False
    ).rows[0]

    def never(seeds: Tensor) -> tuple[Tensor, Tensor]:
        raise AssertionError("sampled")

    stored = dataclasses.replace(fresh, sample=never, cached=tmp_path / "teacher-full.safetensors")
    second = evaluate_models([stored], judge, num_samples=N, metrics=quick_metrics, with_floor=False).rows[0]
    assert second.figures == pytest.approx(first.figures, rel=1e-9)
    assert (first.cached, second.cached) == (False, True)
    with pytest.raises(AssertionError, match="sampled"):
        evaluate_models([stored], judge, num_samples=N, metrics=quick_metrics, with_floor=False, recompute=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"teacher": "b" * 64}, "features of teacher aaa"),
        ({"judge": "0" * 64}, "features of judge fff"),
        ({"first_seed": 5}, "features of seeds from 0, expected 5"),
        ({"sampler": {"name": "euler", "num_steps": 18}}, "features of sampler .*heun.*euler"),
    ],
)
def test_features_of_something_else_are_refused_by_name(change: dict, words: str, kept: Path) -> None:
    with pytest.raises(UserError, match=words):
        load_features(kept, dataclasses.replace(IDENTITY, **change), N)


def test_features_are_a_prefix_or_too_few(kept: Path) -> None:
    assert len(load_features(kept, IDENTITY, 300)) == 300
    with pytest.raises(UserError, match=f"found {N} seeds, expected 5000"):
        load_features(kept, IDENTITY, 5000)


def test_damaged_or_missing_features_are_refused(kept: Path) -> None:
    content = bytearray(kept.read_bytes())
    content[-3] ^= 255
    kept.write_bytes(content)
    with pytest.raises(UserError, match="does not match its checksum"):
        load_features(kept, IDENTITY, N)
    kept.write_bytes(b"nothing")
    with pytest.raises(UserError, match="no readable feature file"):
        load_features(kept, IDENTITY, N)
    with pytest.raises(UserError, match="found no features there"):
        load_features(kept.with_name("other.safetensors"), IDENTITY, N)


def test_an_identity_must_speak_of_this_judge_and_these_seeds(judge) -> None:
    wrong = dataclasses.replace(IDENTITY, first_seed=9)
    row = Candidate(name="teacher", sample=judge.sample, nfe=35, identity=wrong)
    with pytest.raises(UserError, match="row 'teacher' names judge ffffffffffff and seeds from 9"):
        evaluate_models([row], judge, num_samples=N, with_floor=False)


def test_a_feature_file_needs_an_identity(judge, kept: Path) -> None:
    row = Candidate(name="teacher", sample=judge.sample, nfe=35, cached=kept)
    with pytest.raises(UserError, match="no identity"):
        evaluate_models([row], judge, num_samples=N, with_floor=False)


def test_points_are_judged_alike(tmp_path: Path) -> None:
    modes = Modes(means=torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), sd=0.05)

    def draw(seeds: Tensor) -> tuple[Tensor, None]:
        noise = [torch.randn(2, generator=torch.Generator().manual_seed(int(s))) for s in seeds]
        return modes.means[seeds % 2] + modes.sd * torch.stack(noise), None

    rows = [
        Candidate(name="teacher", sample=draw, nfe=35, role="teacher"),
        Candidate(name="collapsed", sample=lambda s: (draw(s - s % 2)[0], None), nfe=1, role="student"),
    ]
    real, held_out = draw(torch.arange(10_000, 10_400))[0], draw(torch.arange(20_000, 20_400))[0]
    found = evaluate_points(rows, real, held_out, modes, num_samples=400)
    assert [row.figures["modes"] for row in found.rows] == [2, 2, 1]
    assert found.rows[2].figures["energy"] > 100 * found.rows[1].figures["energy"]
    found.save(tmp_path / "evaluation.json")
    assert Evaluation.load(tmp_path / "evaluation.json") == found
    assert json.loads((tmp_path / "evaluation.json").read_text())["settings"]["modes"]["threshold"] == 0.25


def test_timing_survives_json(tmp_path: Path) -> None:
    timing = Timing(latency_ms=1.5, images_per_second=10.0, batch=4, repeats=3, threads=1, device="CPU")
    row = Row(name="x", role="student", figures={}, num_samples=1, nfe=1, timing=timing)
    Evaluation(kind="images", rows=(row,), reference="r").save(tmp_path / "e.json")
    assert Evaluation.load(tmp_path / "e.json").rows[0].timing == timing
