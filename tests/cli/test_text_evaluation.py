"""Judging models of text: prompts of the evaluation's own, images resized, the CLIP score, and what is refused."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from unistep.data import load_images
from unistep.data.config import DataConfig
from unistep.errors import UserError
from unistep.evaluation import Candidate, Evaluation, Identity, Metric, Reference, evaluate_models, load_judge
from unistep.evaluation.extractors.resized import resized
from unistep.evaluation.metrics.alignment import Clip
from unistep.evaluation.metrics.frechet import FrechetDistance
from unistep.recipes import load_recipe
from unistep.recipes.schema import DistillRecipe
from unistep.reports.compared import FIGURES
from unistep.reports.html import made_with
from unistep.reports.table import cells
from unistep.run.evaluation_protocol import alignment_of, apply_protocol
from unistep.run.sample_sources import teacher_draws
from unistep.run.training_images import real_images
from unistep.teachers.analytic import mixture_teacher
from unistep.teachers.load import load_teacher
from unistep.teachers.teacher import Teacher

sys.path.insert(0, str(Path(__file__).parents[1] / "teachers"))
import tiny_pipelines as tiny

CPU = torch.device("cpu")
RECIPE: dict[str, Any] = {"kind": "distill", "method": {"lambda_reg": 0}, "training": {"steps": 1, "batch": 2}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline, prompts to learn and others to be judged by, a CLIP."""
    folder = tmp_path_factory.mktemp("text")
    tiny.sd15().save_pretrained(folder / "pipeline")
    tiny.save_clip_model(folder / "clip")
    (folder / "learnt.txt").write_text("a red fox\ntwo boats\n")
    (folder / "judged.txt").write_text("a cat\na tall house\nsnow\n")
    (folder / "empty.txt").write_text("\n\n")
    return folder


def recipe(place: Path, **evaluation: Any) -> DistillRecipe:
    options = {"prompts": str(place / "learnt.txt"), "cache": str(place / "cache"), "compare": 0}
    teacher = {"load": f"diffusers:{place / 'pipeline'}", "options": options}
    values = RECIPE | {"teacher": teacher, "evaluation": {"judge": "embedded:fashion-mnist", **evaluation}}
    (place / "judged.yaml").write_text(json.dumps(values))
    loaded = load_recipe(place / "judged.yaml")
    assert isinstance(loaded, DistillRecipe)
    return loaded


@pytest.fixture(scope="module")
def teacher(place: Path) -> Teacher:
    written = recipe(place).teacher
    return load_teacher(written.load or "", written.options)


# ------------------------------------------------------------------------------------------------------ what is judged


def test_sample_i_is_made_under_prompt_i_of_the_evaluations_file(place: Path, teacher: Teacher) -> None:
    asked = recipe(place, prompts=str(place / "judged.txt"), first_seed=1_000_000, resize=8)
    judged, seeds = apply_protocol(asked, teacher, CPU), torch.arange(1_000_000, 1_000_004)
    assert judged.conditioner is not None and teacher.conditioner is not None
    assert [judged.conditioner.names[i] for i in judged.conditioner.labels(seeds)] == [
        "a cat", "a tall house", "snow", "a cat",
    ]  # fmt: skip
    assert teacher.conditioner.names == ("a red fox", "two boats")
    given: list[Any] = []
    draws = teacher_draws(judged, lambda z, cond, seeds: given.append(cond) or z, CPU)
    images, labels = draws(seeds)
    assert images.shape == (4, 3, 8, 8) and labels is None  # prompts are no classes
    own = load_teacher(
        recipe(place).teacher.load or "", {"prompts": ["snow"], "cache": str(place / "cache")}
    ).conditioner
    assert own is not None
    torch.testing.assert_close(given[0]["text"][2], own.from_labels(torch.tensor([0]))["text"][0])  # type: ignore[index, call-overload]


def test_images_are_resized_as_pil_does(teacher: Teacher) -> None:
    images = torch.randint(0, 256, (2, 3, 24, 24), dtype=torch.uint8)
    for image, small in zip(images, resized(images, 10), strict=True):
        pil = Image.fromarray(image.movedim(0, -1).numpy()).resize((10, 10), Image.Resampling.LANCZOS)
        assert torch.equal(small, torch.from_numpy(np.array(pil)).movedim(-1, 0))
    assert resized(images[:, :1], 10).shape == (2, 1, 10, 10) and torch.equal(resized(images, 24), images)
    for samples in (torch.zeros(2, 2), torch.zeros(1, 3, 8, 16, dtype=torch.uint8)):
        with pytest.raises(UserError, match=r"^evaluation.resize: found samples of shape .*, expected square images$"):
            resized(samples, 8)


def test_the_clip_score_is_transformers_own(place: Path) -> None:
    clip = Clip(str(place / "clip"))
    images = torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8)
    prompts = ["a cat", "x " * 200]  # the second is longer than CLIP reads: its beginning counts
    found = clip(images, prompts)
    text = clip.tokenizer(["a cat", "x " * 75], padding=True, return_tensors="pt")
    pictures = [Image.fromarray(image.movedim(0, -1).numpy()) for image in images]
    with torch.no_grad():
        logits = clip.model(**text, **clip.processor(images=pictures, return_tensors="pt")).logits_per_image
    torch.testing.assert_close(found, logits.diagonal() / clip.model.logit_scale.exp())
    assert clip.title == "CLIP clip" and len(clip.sha256) == 64 and clip.sha256 == Clip(str(place / "clip")).sha256


class Fixed:
    """Alignment that follows from the seed."""

    title, sha256 = "a stand-in", "5" * 64

    def __call__(self, images: Tensor, seeds: Tensor) -> Tensor:
        return seeds.float() / 100


def test_the_score_stands_in_table_and_report_and_comes_back_from_the_features_file(tmp_path: Path) -> None:
    judge = load_judge()
    identity = Identity(teacher="t", judge=judge.sha256, first_seed=0, sampler={"alignment": Fixed.sha256})
    made: list[int] = []

    def sample(seeds: Tensor) -> tuple[Tensor, None]:
        made.extend(seeds.tolist())
        draws = torch.Generator().manual_seed(int(seeds[0]))
        return torch.randint(0, 256, (len(seeds), 1, 28, 28), dtype=torch.uint8, generator=draws), None

    def some(reference: Reference) -> list[Metric]:
        return [FrechetDistance(reference)]

    def evaluated(cached: Path | None = None) -> Evaluation:
        row = Candidate(name="teacher", sample=sample, nfe=1, role="student", identity=identity, cached=cached)
        return evaluate_models([row], judge, num_samples=130, keep_features=tmp_path, alignment=Fixed(), metrics=some)

    first = evaluated()
    again = evaluated(tmp_path / "teacher.safetensors")
    assert made == list(range(130)) and again.rows[1].cached
    for found in (first, again):
        assert found.rows[1].figures["alignment"] == pytest.approx(0.645)
        assert "alignment" not in found.rows[0].figures  # nobody asked for the real images in words
    first.save(tmp_path / "evaluation.json")
    assert Evaluation.load(tmp_path / "evaluation.json").alignment == Fixed.sha256
    text = cells(first)
    assert text.rows[1][text.titles.index("CLIP \u2191")] == "0.645"
    assert "prompts held against images by a stand-in (555555555555)" in text.note
    assert made_with(first)["alignment"] == {"title": "a stand-in", "sha256": Fixed.sha256}
    assert "CLIP" in [column.title for column in FIGURES]


# ----------------------------------------------------------------------------------------------------------- refusals


def test_prompts_that_cannot_be_judged_by(place: Path, teacher: Teacher, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("a cat\n" + "b" * 76 + "\n")
    for file, message in {
        place / "empty.txt": "empty.txt: found no prompt, expected at least one",
        tmp_path / "nowhere.txt": "found no file .*nowhere.txt, expected one with the prompts",
        tmp_path / "long.txt": "prompt 'b+'...: found 78 tokens, expected at most 77",
    }.items():
        with pytest.raises(UserError, match=message) as caught:
            apply_protocol(recipe(place, prompts=str(file)), teacher, CPU)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="^evaluation.prompts: found .*, expected null: gaussians:ring8 reads no text"):
        apply_protocol(recipe(place, prompts=str(place / "judged.txt")), mixture_teacher("ring8"), CPU)


def test_a_clip_that_is_none(place: Path, teacher: Teacher, tmp_path: Path) -> None:
    evaluation = recipe(place, alignment=f"clip:{tmp_path}").evaluation
    with pytest.raises(UserError, match="^evaluation.alignment: cannot load a CLIP model from ") as caught:
        alignment_of(evaluation, teacher, CPU)
    assert "\n" not in str(caught.value)
    with pytest.raises(
        UserError, match="^evaluation.alignment: found clip:.*, expected null: gaussians:ring8 reads no"
    ):
        alignment_of(evaluation, mixture_teacher("ring8"), CPU)


def test_the_clip_is_loaded_once_in_a_process(
    place: Path, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    whole = Clip.__init__
    monkeypatch.setattr(Clip, "__init__", lambda clip, folder: whole(clip, folder) or made.append(folder))
    evaluation = recipe(place, alignment=f"clip:{place / 'clip'}").evaluation
    looked_for, used = (alignment_of(evaluation, teacher, CPU) for _ in range(2))
    assert looked_for is not None and used is not None and made == [str(place / "clip")]
    assert used.clip is looked_for.clip


@pytest.mark.parametrize(("key", "value"), [("resize", 256), ("alignment", "clip:x")])
def test_without_a_judge_nothing_is_resized_or_held_against_prompts(place: Path, key: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"evaluation.{key}: found {value}, expected null: nothing judges"):
        recipe(place, judge=None, **{key: value})


def test_a_teacher_is_not_judged_as_models_of_text_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="evaluation.prompts: found a value, expected null: only distillations are"):
        load_recipe("digits-teacher", ["evaluation.prompts=p.txt"])


def test_real_images_carry_the_numbers_of_their_prompts(place: Path, teacher: Teacher) -> None:
    digits = DataConfig(kind="digits", size=16, channels=3, limit=20)
    with pytest.raises(UserError, match="^data: found labels of 10 kinds, expected the number of each image's prompt"):
        real_images(digits, teacher)
    written = recipe(place).teacher
    reads = load_teacher(written.load or "", written.options | {"prompts": [f"digit {i}" for i in range(12)]})
    x, cond = real_images(digits, reads).rows(torch.arange(3))
    assert x.shape == (3, 4, 8, 8) and reads.conditioner is not None and isinstance(cond, dict)
    labels = load_images(digits).labels
    assert labels is not None
    torch.testing.assert_close(cond["text"], reads.conditioner.from_labels(labels[:3].long())["text"])  # type: ignore[index, call-overload]
