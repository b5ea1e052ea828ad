"""Every method from recipe to evaluated generator on points, and real images that are not the teacher's."""

import json
from pathlib import Path

import pytest
import torch

import unistep
from unistep.errors import UserError
from unistep.recipes import builtin_recipes, load_recipe
from unistep.recipes.schema import DistillRecipe
from unistep.recipes.sections import ExactData
from unistep.run.training_images import real_images
from unistep.teachers import load_teacher
from unistep.teachers.teacher import Teacher

TINY = [
    "fit.network={type: mlp, dim: 2, width: 8, num_blocks: 2}", "fit.training={steps: 2, batch: 16}", "fit.samples=64",
    "fit.max_error=100", "training.steps=5", "training.batch=8", "training.preview_every=null",
    "evaluation.samples=128", "evaluation.samples_during_training=100", "evaluation.solver={name: heun, num_steps: 2}",
    "pairs.count=20", "pairs.tile=10", "pairs.solver={name: heun, num_steps: 2}",
]  # fmt: skip
MORE = {
    "gaussians-instaflow": ["method.distil_from_step=3"],
    "gaussians-progressive": ["method.start_steps=8", "method.final_steps=2", "method.long_rounds=1"],
}
NAMES = [name for name in builtin_recipes() if name.startswith("gaussians-") and name != "gaussians-grid"]


@pytest.mark.parametrize("name", NAMES)
def test_every_method_leaves_a_generator_that_is_sampled_and_judged(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name, [*TINY, *MORE.get(name, [])])
    assert isinstance(recipe, DistillRecipe)
    steps = {"gaussians-dmd2-steps": 4, "gaussians-progressive": 2}.get(name, 1)
    run = unistep.distill(recipe, out=tmp_path / "run", device="cpu", quiet=True)
    rows = json.loads((run / "evaluation.json").read_text())["rows"]
    assert (rows[-1]["role"], rows[-1]["nfe"]) == ("student", steps)
    assert rows[-1]["name"] == ("one-step generator" if steps == 1 else f"generator of {steps} steps")
    generator, config, _ = unistep.load_generator(run)
    assert generator.steps.count == steps
    assert len(config.get("steps", {"later": []})["later"]) == steps - 1
    assert unistep.sample(run, num=4).is_file()
    assert (run / "report.html").is_file()


def test_exact_samples_are_a_function_of_their_seeds() -> None:
    teacher = load_teacher("gaussians:ring8")
    a = real_images(ExactData(kind="exact", count=10), teacher)
    b = real_images(ExactData(kind="exact", count=4, first_seed=30_000_003), teacher)
    index = torch.arange(4)
    assert torch.equal(a.rows(index + 3)[0], b.rows(index)[0])


@pytest.fixture(scope="module")
def images() -> Teacher:
    return load_teacher("embedded:fashion-mnist")


def data(text: str) -> DistillRecipe:
    recipe = load_recipe("gaussians", [f"data={text}"])
    assert isinstance(recipe, DistillRecipe)
    return recipe


def test_images_are_given_to_the_method_as_the_teacher_sees_them(images: Teacher) -> None:
    config = data("{kind: digits, size: 28}").data
    assert config is not None
    x, cond = real_images(config, images).rows(torch.arange(3))
    assert x.shape == (3, 1, 28, 28)
    assert x.min() >= -1
    assert cond is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{kind: exact}", "data.kind: found exact, expected image files: embedded:fashion-mnist is no exact mixture"),
        ("{kind: digits}", r"data: found images of \[1, 8, 8\], expected \[1, 28, 28\], as the teacher makes them"),
        (
            "{kind: digits, size: 28, names: [a, b, c, d, e, f, g, h, i, j, k]}",
            "data: found 11 classes, expected 10, those of the teacher",
        ),
    ],
)
def test_images_of_another_kind_are_refused(text: str, words: str, images: Teacher) -> None:
    config = data(text).data
    assert config is not None
    with pytest.raises(UserError, match=words):
        real_images(config, images)
