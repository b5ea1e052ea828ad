"""A generator that starts from another generator instead of the teacher's network."""

from pathlib import Path

import pytest
import torch

from unistep.errors import UserError
from unistep.networks import Generator
from unistep.networks.build import build_denoiser
from unistep.recipes import load_recipe
from unistep.recipes.schema import DistillRecipe
from unistep.run.distill import build_method_inputs
from unistep.run.evaluate import generator_folder
from unistep.run.folder import read_record
from unistep.run.teacher import StudentInit
from unistep.teachers import load_teacher
from unistep.teachers.checkpoint import load_generator, save_denoiser

EMBEDDED = "embedded:fashion-mnist/regression_only"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def start() -> StudentInit:
    teacher = load_teacher("embedded:fashion-mnist")
    return StudentInit(teacher, teacher)


def recipe(*overrides: str) -> DistillRecipe:
    found = load_recipe("fashion-mnist", overrides)
    assert isinstance(found, DistillRecipe)
    return found


def test_it_is_that_generator_and_the_run_says_which(start: StudentInit, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    wanted = recipe(f"generator.init={EMBEDDED}")
    generator = build_method_inputs(wanted, start, CPU, tmp_path).build_generator()
    other, _, sha256 = load_generator(generator_folder(EMBEDDED))
    z, labels = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.arange(3)
    with torch.no_grad():
        torch.testing.assert_close(generator(z, labels), other(z, labels))
        assert not torch.allclose(
            generator(z, labels), build_method_inputs(recipe(), start, CPU).build_generator()(z, labels)
        )
    assert read_record(tmp_path / "run.json")["generator_init"] == {"source": EMBEDDED, "sha256": sha256}


def test_one_held_at_another_level_is_refused(start: StudentInit) -> None:
    with pytest.raises(UserError, match=r"generator\.init: found a generator held at t = 8, expected the terminal"):
        build_method_inputs(recipe(f"generator.init={EMBEDDED}", "generator.sigma_init=null"), start, CPU)


def test_another_network_is_refused(start: StudentInit, tmp_path: Path) -> None:
    narrow = {**start.network.config["network"], "model_channels": 32}
    description = start.description(Generator(torch.nn.Identity(), start.teacher.process, 8.0))
    save_denoiser(
        tmp_path / "generator", build_denoiser({**description, "network": narrow}), {**description, "network": narrow}
    )
    with pytest.raises(UserError, match=r"generator\.init .*misshapen"):
        build_method_inputs(recipe(f"generator.init={tmp_path}"), start, CPU)


def test_a_missing_one_is_refused(start: StudentInit, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        build_method_inputs(recipe(f"generator.init={tmp_path / 'nowhere'}"), start, CPU)
