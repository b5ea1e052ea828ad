"""The paper's recipes for models of text in their smoke forms: from a pipeline's folder to an evaluated student.

The networks are of the real classes, tiny and random, so no teacher is certified and figures mean nothing.
"""

import json
import sys
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

import unistep
from unistep.pairs import open_pairs
from unistep.recipes import load_recipe
from unistep.recipes.comparison import CompareRecipe
from unistep.recipes.entries import entry_recipe
from unistep.recipes.schema import DistillRecipe
from unistep.recipes.stages import stages_of

sys.path.insert(0, str(Path(__file__).parents[1] / "teachers"))
import tiny_pipelines as tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the recipes ask for: pipelines, prompts to learn and to be judged by, a tiny VAE, a CLIP."""
    folder = tmp_path_factory.mktemp("recipes")
    tiny.sd15().save_pretrained(folder / "sd15")
    tiny.sdxl().save_pretrained(folder / "sdxl")
    channels = {"encoder_block_out_channels": (4, 4), "decoder_block_out_channels": (4, 4)}
    blocks = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
    tiny.randomised(diffusers.AutoencoderTiny(**channels, **blocks)).save_pretrained(folder / "taesd")
    tiny.save_clip_model(folder / "clip")
    (folder / "learnt.txt").write_text("\n".join(f"the digit {n}" for n in range(10)))
    (folder / "judged.txt").write_text("\n".join(f"number {n}" for n in range(128)))
    return folder


def distilled(place: Path, name: str, *overrides: str) -> Path:
    """The smoke form of a recipe with the files of `place`."""
    pipeline = place / name.partition("-")[0]
    files = [
        f"teacher.load=diffusers:{pipeline}", f"teacher.options.prompts={place / 'learnt.txt'}",
        f"teacher.options.cache={place / 'cache'}", "teacher.certify=false",
        f"evaluation.prompts={place / 'judged.txt'}", f"evaluation.alignment=clip:{place / 'clip'}", *overrides,
    ]  # fmt: skip
    run = unistep.distill(f"{name}:smoke", out=place / name, overrides=files, device="cpu", quiet=True)
    found = json.loads((run / "evaluation.json").read_text())
    student = next(row for row in found["rows"] if row["role"] == "student")
    assert student["num_samples"] == 128 and student["figures"]["frechet"] > 0
    assert -1 < student["figures"]["alignment"] < 1 and found["alignment_title"] == "CLIP clip"
    assert "CLIP" in (run / "report.html").read_text()
    kept = json.loads((run / "health-reference.json").read_text())["made_with"]
    assert kept["count"] == 256 and kept["features"]["resize"] == 8 and kept["guidance"] > 1
    return run


def tiny_decoder(place: Path) -> str:
    return f"method.decoder=tiny:{place / 'taesd'}"


def test_guidance_3(place: Path) -> None:
    run = distilled(place, "sd15-guidance3", tiny_decoder(place))
    assert json.loads((run / "run.json").read_text())["decoder"]["source"] == f"tiny:{place / 'taesd'}"
    generator, config, _ = unistep.load_generator(run)
    assert generator.steps.count == 1 and config["conditioner"]["type"] == "text"
    assert unistep.sample(run, num=2, labels=["the digit 3"]).is_file()


def test_guidance_8_in_stages(place: Path) -> None:
    run = distilled(place, "sd15-guidance8", tiny_decoder(place))
    assert len(open_pairs(run / "pairs")) == 8
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged if "loss/reg" in line] == [1, 2, 3, 4]


def test_sdxl_in_four_steps(place: Path) -> None:
    run = distilled(place, "sdxl-dmd2")
    generator, _, _ = unistep.load_generator(run)
    assert generator.steps.later_times == (749.0, 499.0, 249.0)


def test_sdxl_in_one_step_from_a_regression(place: Path) -> None:
    start = distilled(place, "sdxl-regression", tiny_decoder(place))
    run = distilled(place, "sdxl-dmd2-onestep", f"generator.init={start}")
    generator, _, sha256 = unistep.load_generator(run)
    assert generator.t_init == 399 and generator.steps.count == 1
    x, t = generator.start(torch.ones(1, 4, 8, 8))
    assert t.tolist() == [399.0] and x[0, 0, 0, 0].item() == pytest.approx(0.7576, abs=1e-4)  # as the recipe says
    assert json.loads((run / "run.json").read_text())["generator_init"]["sha256"] != sha256


# ------------------------------------------------------------------------------------------------------ the full forms


TABLE_5 = [  # until, pairs in millions, lambda_reg, highest timestep, VAE, rows per GPU of matching and of regression
    (5_400, 2.5, 0.1, 980, "small", 32, 16), (8_600, 2.5, 0.5, 980, "small", 32, 16),
    (21_100, 2.5, 1, 980, "small", 32, 16), (56_300, 4, 1, 980, "small", 32, 16), (60_100, 6, 1, 980, "small", 32, 16),
    (68_000, 9, 1, 980, "small", 32, 16), (74_000, 12, 1, 980, "small", 32, 16), (80_000, 12, 1, 500, "small", 32, 16),
    (127_000, 12, 1, 500, "large", 16, 4), (149_500, 12, 0.75, 500, "large", 16, 4),
    (162_500, 12, 0.5, 500, "large", 16, 4), (165_000, 12, 0.25, 500, "large", 16, 4),
]  # fmt: skip


def test_the_twelve_stages_are_the_papers_table() -> None:
    recipe = load_recipe("sd15-guidance8")
    assert isinstance(recipe, DistillRecipe)

    def row(until: int, values: dict[str, Any]) -> tuple[Any, ...]:
        method, training = values["method"], values["training"]
        vae = "large" if method["decoder"] == "vae" else "small"
        rows = (training["batch"] / 80, training["pair_batch"] / 80)
        return until, values["pairs"]["count"] / 1e6, method["lambda_reg"], 1000 * method["max_fraction"], vae, *rows

    assert [row(stage.until, stage.recipe.model_dump()) for stage in stages_of(recipe)] == TABLE_5


def test_quality_against_alignment_differs_in_guidance_alone() -> None:
    comparison = load_recipe("text-guidance")
    assert isinstance(comparison, CompareRecipe)
    low, high = (entry_recipe(comparison, name) for name in comparison.entries)
    assert isinstance(low, DistillRecipe) and isinstance(high, DistillRecipe)
    assert (low.teacher.guidance, high.teacher.guidance) == (3, 8) and low.evaluation.alignment is not None
    assert low.model_dump(exclude={"name", "teacher"}) == high.model_dump(exclude={"name", "teacher"})
