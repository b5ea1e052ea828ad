"""Averaged or last weights: as asked for, or whichever measures better."""

from pathlib import Path

import pytest
import torch
from tiny_edm2 import edm2_teacher
from torch import nn

from unistep.networks import Generator
from unistep.run.teacher import StudentInit
from unistep.run.weights import choose_weights
from unistep.teachers.checkpoint import load_generator
from unistep.training import EMA, EMAConfig


def trained() -> tuple[nn.Linear, EMA]:
    """A network whose weight is 3 and whose average is 1."""
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(1.0)
    ema = EMA(network, EMAConfig(half_life=10.0))
    network.weight.data.fill_(3.0)
    return network, ema


def distance_to(target: float):  # noqa: ANN201
    return lambda network: abs(network.weight.item() - target)


@pytest.mark.parametrize(
    ("wanted", "target", "name"),
    [("best", 1.2, "ema"), ("best", 2.9, "raw"), ("ema", 2.9, "ema"), ("raw", 1.2, "raw"), ("best", None, "ema")],
)
def test_the_better_ones_are_exported_unless_the_recipe_says_which(
    wanted: str, target: float | None, name: str
) -> None:
    network, ema = trained()
    chosen = choose_weights(wanted, network, ema, None if target is None else distance_to(target))  # type: ignore[arg-type]
    assert chosen.name == name
    assert float(chosen.state["weight"]) == {"ema": 1.0, "raw": 3.0}[name]
    assert network.weight.item() == 3.0
    compared = wanted == "best" and target is not None
    assert chosen.scores == ({"raw": abs(3.0 - target), "ema": abs(1.0 - target)} if compared else {})  # type: ignore[operator]


def test_without_an_average_there_is_no_choice() -> None:
    network, _ = trained()
    chosen = choose_weights("ema", network, None, distance_to(0.0))
    assert chosen.name == "raw"
    assert torch.equal(chosen.state["weight"], network.weight)


def test_both_are_measured_without_dropout() -> None:
    network = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5)).train()
    modes: list[bool] = []

    def measure(network: nn.Module) -> float:
        modes.append(any(module.training for module in network.modules()))
        return 0.0

    choose_weights("best", network, EMA(network, EMAConfig(half_life=10.0)), measure)
    assert modes == [False, False]
    assert all(module.training for module in network.modules())


def test_exporting_makes_no_further_copy_of_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = edm2_teacher()
    start, generator = StudentInit(network, network), Generator(network.trainable_copy(), network.process)
    state = {name: value + 1 for name, value in generator.state_dict().items()}
    monkeypatch.setattr(StudentInit, "copy", lambda self: pytest.fail("copies the network"))
    start.save_generator(tmp_path / "generator", state, generator)
    found, _, _ = load_generator(tmp_path / "generator")
    assert found.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in found.state_dict().items())
