"""What every method promises the loop: finite per-sample terms, its own networks moved, all processes or a refusal."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from fixed_random import FixedRandom
from pydantic import TypeAdapter
from small import PROCESSES, ROWS, full_batch, made_of, moved, names, only

from unistep.methods.base import Batch, Method
from unistep.methods.config import MethodConfig
from unistep.methods.registry import AnyMethod
from unistep.process.base import NoiseProcess

SETTINGS: dict[str, dict[str, Any]] = {
    "dmd": {"name": "dmd", "regression": "l2"},
    "knowledge": {"name": "knowledge"},
    "dmd2": {"name": "dmd2", "fake_score_updates_per_step": 2},
    "dmd2 of 3 steps": {"name": "dmd2", "fake_score_updates_per_step": 1, "num_steps": 3},
    "dmd2 without GAN": {"name": "dmd2", "lambda_gan": 0},
    "gan": {"name": "gan", "discriminator_updates_per_step": 2},
    "sid": {"name": "sid", "fake_levels": "uniform", "fake_score_updates_per_step": 2},
    "consistency distillation": {"name": "consistency_distillation"},
    "with an average": {"name": "consistency_distillation", "target_decay": 0.9, "images": "data", "num_steps": 2},
    "consistency training": {"name": "consistency_training"},
    "progressive": {"name": "progressive", "start_steps": 8},
    "instaflow": {"name": "instaflow", "distil_from_step": 20, "reflows": 2, "solver_steps": 2},
    "rectified flow": {"name": "instaflow", "num_steps": 3},
}


def settings(values: dict[str, Any]) -> MethodConfig:
    return TypeAdapter(AnyMethod).validate_python(values)


def every_phase(method: Method, length: int = 40) -> list[Any]:
    """The phases of a step in each stage."""
    stages = (0, *method.milestones(), length - 1)
    return [phase for step in stages for phase in method.phases(step)]


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("process", PROCESSES, ids=names)
@pytest.mark.parametrize("values", SETTINGS.values(), ids=SETTINGS)
def test_each_phase_moves_its_own_networks(values: dict[str, Any], process: NoiseProcess, classes: int) -> None:
    method = settings(values).build(made_of(process, classes))
    for network in method.networks.values():  # apart from each other, as they are after some steps
        for p in network.parameters():
            p.data.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    for phase in every_phase(method):
        only(method, phase)
        output = method.loss(phase, full_batch(classes), FixedRandom())
        assert set(output.weights) <= set(output.terms)
        assert all(term.shape == (ROWS,) and bool(term.isfinite().all()) for term in output.terms.values())
        output.total().backward()
        assert {name: moved(network) for name, network in method.networks.items()} == {
            name: name in phase.trains for name in method.networks
        }
    assert not any(p.requires_grad or p.grad is not None for n in method.carried.values() for p in n.parameters())


@pytest.mark.parametrize("values", SETTINGS.values(), ids=SETTINGS)
def test_the_generator_starts_from_the_teacher_and_makes_samples(values: dict[str, Any]) -> None:
    ingredients = made_of()
    generator: Any = settings(values).build(ingredients).networks["generator"]
    x, t = torch.randn(ROWS, 2), torch.rand(ROWS) + 0.1
    torch.testing.assert_close(generator(x, None, t), ingredients.teacher(x, t))
    made = generator.sample(x, None, torch.arange(ROWS))
    assert made.shape == x.shape
    assert generator.steps.count == values.get("num_steps", values.get("final_steps", 1))


@pytest.mark.parametrize("values", SETTINGS.values(), ids=SETTINGS)
def test_the_phases_that_get_pairs_and_images_are_those_there_are(values: dict[str, Any]) -> None:
    config = settings(values)
    method = config.build(made_of())
    known = {phase.name for phase in every_phase(method)}
    assert config.needs_pairs <= bool(known & set(method.pair_phases))
    assert config.needs_data <= bool(known & set(method.image_phases))


@pytest.mark.parametrize("values", SETTINGS.values(), ids=SETTINGS)
def test_each_phase_gets_what_it_asks_for(values: dict[str, Any]) -> None:
    """Streams give a phase only what the method declares; a phase that reuses samples has the batch they came from."""
    config = settings(values)
    method, full = config.build(made_of()), full_batch()
    pairs = {"pair_z": full.pair_z, "pair_x": full.pair_x} if config.needs_pairs else {}
    for step in (0, *method.milestones(), 39):
        made = Batch(size=ROWS)
        for phase in method.phases(step):
            images = {"real": full.real} if config.needs_data and phase.name in method.image_phases else {}
            given = Batch(size=ROWS, **images, **(pairs if phase.name in method.pair_phases else {}))
            output = method.loss(phase, made if phase.reuses_samples else given, FixedRandom())
            made = replace(given, samples=output.samples) if output.samples is not None else made
