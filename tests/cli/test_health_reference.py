"""The health monitor's reference: drawn in chunks, once in a run, of fewer samples where they are dear."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unistep.errors import UserError
from unistep.run.health_reference import FIRST_SEED, HealthReference, health_reference, reference_seeds
from unistep.run.sample_sources import SampleSource
from unistep.teachers.codecs import PixelCodec
from unistep.teachers.conditioners import LabelConditioner
from unistep.training.health import sample_statistics
from unistep.types import Cond

CPU = torch.device("cpu")
MADE_WITH = {"teacher": "abc", "solver": {"name": "heun", "num_steps": 18}, "guidance": 3.0, "features": None}


class Noted:
    """Half of z, and how many samples were asked for at once."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, z: Tensor, cond: Cond, seeds: Tensor) -> Tensor:
        self.rows.append(len(z))
        assert isinstance(cond, Tensor) and len(cond) == len(seeds) == len(z)
        return 0.5 * z

    def draws(self) -> SampleSource:
        return SampleSource(
            model=self, shape=(1, 4, 4), codec=PixelCodec(), conditioner=LabelConditioner(3), device=CPU
        )


def made(model: Noted, file: Path | None = None, batch: int = 100, **changes: Any) -> HealthReference:
    return health_reference(model.draws(), None, batch, 35, file, {**MADE_WITH, **changes})


def test_it_is_drawn_in_chunks_and_the_same_as_at_once() -> None:
    model, whole = Noted(), Noted()
    chunked, at_once = made(model), made(whole, batch=256)
    assert (model.rows, whole.rows) == ([100, 100, 56], [256])
    assert (chunked.statistics, chunked.spread) == (at_once.statistics, at_once.spread)
    seeds = torch.arange(FIRST_SEED, FIRST_SEED + 256)
    x = whole.draws().raw(seeds, LabelConditioner(3).from_seeds(seeds))
    assert chunked.statistics == sample_statistics(x) and set(chunked.spread.by_class) == {0, 1, 2}


def test_a_resumed_run_reads_it_and_draws_nothing(tmp_path: Path) -> None:
    file, model = tmp_path / "health-reference.json", Noted()
    first = made(model, file)
    model.rows.clear()
    again = made(model, file, batch=7)  # how many are drawn at once may change
    assert model.rows == [] and (again.statistics, again.spread) == (first.statistics, first.spread)
    x, cond = torch.randn(64, 1, 4, 4), torch.arange(64) % 3
    assert again.diversity(x, cond) == first.diversity(x, cond) > 1


@pytest.mark.parametrize("changes", [{"guidance": 1.0}, {"teacher": "other"}, {"features": {"judge": "x"}}])
def test_one_that_was_made_otherwise_is_made_anew(tmp_path: Path, changes: dict[str, object]) -> None:
    file, model = tmp_path / "health-reference.json", Noted()
    made(model, file)
    made(model, file, **changes)
    assert sum(model.rows) == 512 and json.loads(file.read_text())["made_with"].items() >= changes.items()


@pytest.mark.parametrize("text", ["{", "[]", '{"made_with": 1', '{"spread": {}}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "health-reference.json"
    file.write_text(text)
    with pytest.raises(
        UserError,
        match=r"health-reference.json: .*(no readable|found JSON of type list|holds no).*delete this one file",
    ):
        made(Noted(), file)


@pytest.mark.parametrize(
    ("shape", "nfe", "count"),
    [((2,), 79, 256), ((3, 32, 32), 35, 256), ((3, 64, 64), 511, 64), ((4, 64, 64), 102, 64), ((4, 128, 128), 100, 64)],
    ids=["points", "CIFAR-10", "ImageNet 64", "Stable Diffusion", "Stable Diffusion XL"],
)
def test_fewer_samples_of_costly_teachers(shape: tuple[int, ...], nfe: int, count: int) -> None:
    assert len(reference_seeds(shape, nfe)) == count
