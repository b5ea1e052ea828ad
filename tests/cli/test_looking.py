"""What is looked at: previews with the teacher above, samples by seed and label, none of them of the pairs' seeds."""

import inspect
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

import unistep.run.extractors
from unistep import api, load_teacher
from unistep.assets import embedded_folder
from unistep.cli import app
from unistep.evaluation.extractors.features import load_judge
from unistep.evaluation.extractors.pretrained import FeatureJudge
from unistep.recipes import load_recipe
from unistep.recipes.schema import DistillRecipe
from unistep.run import sample as sampling
from unistep.run.console import Talk
from unistep.run.extractors import judged_features
from unistep.run.health_reference import Features, HealthReference, health_reference
from unistep.run.hooks import IMAGE_SEEDS, POINT_SEEDS, build_hooks
from unistep.run.sample import draws_from
from unistep.run.sample_sources import SampleSource
from unistep.teachers.codecs import PixelCodec, PointCodec
from unistep.teachers.conditioners import LabelConditioner
from unistep.training import View
from unistep.types import Cond

CPU = torch.device("cpu")
WHITE, BLACK = (255, 255, 255, 255), (0, 0, 0, 255)


class Plain:
    """Draws of one value everywhere; keeps the seeds it was asked for."""

    def __init__(self, value: float, shape: tuple[int, ...] = (1, 8, 8)):
        self.value, self.shape, self.asked = value, shape, list[Tensor]()

    def draws(self, network: nn.Module | None = None) -> SampleSource:
        codec = PixelCodec() if len(self.shape) == 3 else PointCodec()
        return SampleSource(model=self.model, shape=self.shape, codec=codec, conditioner=None, device=CPU)

    def model(self, z: Tensor, cond: Cond, seeds: Tensor) -> Tensor:
        self.asked.append(seeds)
        return torch.full_like(z, self.value) if z.ndim == 4 else z


def view(folder: Path, step: int) -> View:
    return View(step=step, method=None, network=nn.Linear(1, 1), ema=None, run_dir=folder, device=CPU)  # type: ignore[arg-type]


def test_previews_have_the_teachers_row_above(tmp_path: Path) -> None:
    student, teacher = Plain(-1.0), Plain(1.0)
    hooks = build_hooks(student.draws, None, Talk(quiet=True), teacher.draws())
    for step in (0, 5):
        assert hooks.preview is not None
        hooks.preview(view(tmp_path, step))
    assert sorted(p.name for p in (tmp_path / "previews").iterdir()) == ["step-0000000.png", "step-0000005.png"]
    with Image.open(tmp_path / "previews" / "step-0000005.png") as picture:
        assert picture.height == 2 * 64 + 2
        assert picture.getpixel((picture.width - 1, 0)) == WHITE
        assert picture.getpixel((picture.width - 1, picture.height - 1)) == BLACK
    assert len(teacher.asked) == 1 and torch.equal(teacher.asked[0], IMAGE_SEEDS)
    assert len(student.asked) == 2 and all(torch.equal(seeds, IMAGE_SEEDS) for seeds in student.asked)


def test_without_a_teacher_there_is_one_row(tmp_path: Path) -> None:
    hooks = build_hooks(Plain(-1.0).draws, None, Talk(quiet=True))
    assert hooks.preview is not None and hooks.evaluate is None and hooks.reference is None
    hooks.preview(view(tmp_path, 1))
    with Image.open(tmp_path / "previews" / "step-0000001.png") as picture:
        assert picture.height == 64


def noise(z: Tensor, cond: Cond, seeds: Tensor) -> Tensor:
    return 0.5 * z


def referred(teacher: SampleSource, features: Features | None = None) -> HealthReference:
    return health_reference(teacher, features, 100, 1, None, {})


def test_diversity_is_watched_in_features_of_what_is_seen_where_there_are_any() -> None:
    teacher = SampleSource(
        model=noise, shape=(1, 4, 4), codec=PixelCodec(), conditioner=LabelConditioner(3), device=CPU
    )
    seen: list[tuple[torch.dtype, int]] = []

    def features(images: Tensor) -> Tensor:
        seen.append((images.dtype, len(images)))
        return images[:, 0, 0, :1].float()  # one pixel

    x, cond = torch.randn(100, 1, 4, 4).clamp(-2, 2) / 2, torch.arange(100) % 3
    spoilt = torch.where(torch.arange(16).reshape(4, 4) == 0, x[:1], x)  # that pixel is the same everywhere
    watched, values = referred(teacher, features), referred(teacher)
    assert (watched.diversity(x, cond), watched.diversity(spoilt, cond)) == (pytest.approx(1, abs=0.25), 0)
    assert values.diversity(x, cond) == pytest.approx(1, abs=0.1)
    assert values.diversity(spoilt, cond) == pytest.approx(math.sqrt(15 / 16), abs=0.1)
    assert seen == [*[(torch.uint8, 100)] * 2, (torch.uint8, 56), *[(torch.uint8, 64)] * 2]  # few: a judge may cost
    hooks = build_hooks(Plain(0.0).draws, None, Talk(quiet=True), teacher, watched)
    assert hooks.reference == watched.statistics and hooks.diversity == watched.diversity
    assert watched.statistics == values.statistics


def lent(name: str, folder: Path) -> Features | None:
    recipe = load_recipe(name)
    assert isinstance(recipe, DistillRecipe) and recipe.teacher.load is not None
    return judged_features(recipe, load_teacher(recipe.teacher.load), folder, CPU, Talk(quiet=True))


def test_a_judge_trained_on_the_data_lends_its_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features, images = lent("fashion-mnist", tmp_path), torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8)
    assert features is not None
    assert torch.equal(features(images), load_judge("embedded:fashion-mnist").features(images)[0])
    assert lent("gaussians", tmp_path) is None
    large = FeatureJudge(title="large", network=nn.Identity(), sha256="", references={})
    monkeypatch.setattr(unistep.run.extractors, "find_judge", lambda *a: large)
    assert lent("fashion-mnist", tmp_path) is None


def test_points_are_previewed_from_seeds_of_their_own(tmp_path: Path) -> None:
    student = Plain(0.0, (2,))
    hooks = build_hooks(student.draws, None, Talk(quiet=True))
    assert hooks.preview is not None
    hooks.preview(view(tmp_path, 1))
    assert torch.equal(student.asked[0], POINT_SEEDS)


def test_what_is_looked_at_is_neither_learnt_nor_judged() -> None:
    assert IMAGE_SEEDS.tolist() == list(range(2_000_000, 2_000_010))
    assert POINT_SEEDS.tolist() == list(range(2_000_000, 2_002_000))
    assert inspect.signature(api.sample).parameters["first_seed"].default == 2_000_000


def test_the_program_samples_from_the_same_seed_as_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, object] = {}
    monkeypatch.setattr(api, "sample", lambda run, **kwargs: seen.update(kwargs))
    assert CliRunner().invoke(app, ["sample", str(tmp_path), "-q"], catch_exceptions=False).exit_code == 0
    assert seen == {
        "num": 64, "first_seed": 2_000_000, "labels": None, "files": False, "out": None, "checkpoint": None,
        "prompts": None, "device": "auto", "quiet": True,
    }  # fmt: skip


def test_sample_writes_a_file_per_image_of_the_labels_asked_for(tmp_path: Path) -> None:
    generator = embedded_folder("fashion-mnist") / "regression_only"
    arguments = ["--label", "bag", "--label", "9", "--files", "-n", "3", "--first-seed", "5", "--device", "cpu"]
    result = CliRunner().invoke(app, ["sample", str(generator), *arguments, "--out", str(tmp_path)])
    assert (result.exit_code, result.stdout.split()) == (0, [str(tmp_path / "seeds-5-7.png")])
    expected = draws_from(generator, CPU).decoded(torch.tensor([5, 6, 7]), torch.tensor([8, 9, 8]))
    names = [f"{seed:08d}.png" for seed in (5, 6, 7)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [*names, "seeds-5-7.png"]
    for name, image in zip(names, expected, strict=True):
        with Image.open(tmp_path / name) as file:
            assert np.array_equal(np.asarray(file), image[0].numpy())


def test_a_second_call_of_sample_keeps_the_picture_of_the_first(tmp_path: Path) -> None:
    generator = embedded_folder("fashion-mnist") / "regression_only"

    def drawn(label: str) -> Path:
        return api.sample(generator, num=2, first_seed=5, labels=[label], files=True, out=tmp_path, device="cpu")

    bags = drawn("bag")
    before = bags.read_bytes(), (tmp_path / "00000005.png").read_bytes()
    assert drawn("coat") == tmp_path / "seeds-5-6-2.png" and (tmp_path / "00000005-2.png").is_file()
    assert (bags.read_bytes(), (tmp_path / "00000005.png").read_bytes()) == before
    assert drawn("bag") == bags and drawn("shirt").name == "seeds-5-6-3.png"


def test_samples_do_not_depend_on_how_many_are_made_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = embedded_folder("fashion-mnist") / "regression_only"
    found = []
    for values in (sampling.VALUES, 2 * 28 * 28):
        monkeypatch.setattr(sampling, "VALUES", values)
        with Image.open(api.sample(generator, num=5, out=tmp_path / str(values), device="cpu")) as file:
            found.append(np.asarray(file).astype(int))
    assert len(sampling.tiles(5, (1, 28, 28))) == 3 and np.abs(found[0] - found[1]).max() <= 1


def test_large_samples_are_made_a_few_at_a_time() -> None:
    assert [part.start for part in sampling.tiles(120, (3, 32, 32))] == [0, 100]
    assert len(sampling.tiles(64, (4, 128, 128))) == 16 and len(sampling.tiles(3, (16, 256, 256))) == 3
