"""What every method promises the loop: finite per-sample terms, its own networks moved, all processes or a refusal."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from fixed_random import FixedRandom
from pydantic import TypeAdapter
from small import PROCESSES, ROWS, full_batch, made_of, moved, names, only

from unistep.diffusion.process.base import NoiseProcess
from unistep.errors import UserError
from unistep.methods.base import Batch, Method
from unistep.methods.config import MethodConfig
from unistep.methods.registry import AnyMethod

SETTINGS: dict[str, dict[str, Any]] = {
    "dmd": {"name": "dmd", "regression": "l2"},
    "knowledge": {"name": "knowledge"},
    "dmd2": {"name": "dmd2", "fake_score_updates_per_step": 2},
    "dmd2 of 3 steps": {"name": "dmd2", "fake_score_updates_per_step": 1, "num_steps": 3},
    "dmd2 without GAN": {"name": "dmd2", "lambda_gan": 0},
    "f_distill": {"name": "f_distill", "divergence": "kl"},
    "gan": {"name": "gan", "discriminator_updates_per_step": 2},
    "sid": {"name": "sid", "fake_levels": "uniform", "fake_score_updates_per_step": 2},
    "sida": {"name": "sida", "fake_levels": "uniform"},
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
    stages = (0, *(step for steps in method.milestones().values() for step in steps), length - 1)
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
        output = phase.loss(full_batch(classes), FixedRandom())
        assert set(output.weights) <= set(output.terms)
        assert all(term.shape == (ROWS,) and bool(term.isfinite().all()) for term in output.terms.values())
        output.total().backward()
        assert {name: moved(network) for name, network in method.networks.items()} == {
            name: name in phase.trains for name in method.networks
        }
    assert not any(
        p.requires_grad or p.grad is not None for n in method.auxiliary_networks.values() for p in n.parameters()
    )


@pytest.mark.parametrize("values", SETTINGS.values(), ids=SETTINGS)
def test_the_generator_starts_from_the_teacher_and_makes_samples(values: dict[str, Any]) -> None:
    inputs = made_of()
    generator: Any = settings(values).build(inputs).networks["generator"]
    x, t = torch.randn(ROWS, 2), torch.rand(ROWS) + 0.1
    torch.testing.assert_close(generator(x, None, t), inputs.teacher(x, t))
    made = generator.sample(x, None, torch.arange(ROWS))
    assert made.shape == x.shape
    assert generator.steps.count == values.get("num_steps", values.get("final_steps", 1))


@pytest.mark.parametrize("values", SETTINGS.values(), ids=SETTINGS)
def test_the_phases_that_get_pairs_and_images_are_those_there_are(values: dict[str, Any]) -> None:
    config = settings(values)
    method = config.build(made_of())
    used = {stream for phase in every_phase(method) for stream in phase.inputs}
    assert used == {*(["pairs"] if config.needs_pairs else []), *(["images"] if config.needs_data else [])}


@pytest.mark.parametrize("values", SETTINGS.values(), ids=SETTINGS)
def test_each_phase_gets_what_it_asks_for(values: dict[str, Any]) -> None:
    """Streams give a phase only what the method declares; a phase that reuses samples has the batch they came from."""
    config = settings(values)
    method, full = config.build(made_of()), full_batch()
    pairs = {"pair_z": full.pair_z, "pair_x": full.pair_x} if config.needs_pairs else {}
    for step in (0, *(step for steps in method.milestones().values() for step in steps), 39):
        made = Batch(size=ROWS)
        for phase in method.phases(step):
            images = {"real": full.real} if "images" in phase.inputs else {}
            given = Batch(size=ROWS, **images, **(pairs if "pairs" in phase.inputs else {}))
            output = phase.loss(made if phase.reuses_samples else given, FixedRandom())
            made = replace(given, samples=output.samples) if output.samples is not None else made


@pytest.mark.parametrize("values", [{"name": "sid"}, {"name": "consistency_training", "schedule": "ect"}])
@pytest.mark.parametrize("process", PROCESSES[1:], ids=names)
def test_what_is_defined_by_sigma_refuses_other_processes(values: dict[str, Any], process: NoiseProcess) -> None:
    with pytest.raises(UserError, match="with process .*, expected an EDM process, where t is sigma; use"):
        settings(values).build(made_of(process))
    assert settings(values).build(made_of()).networks


def test_weights_of_heads_are_drawn_without_visiting_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    visited: list[object] = []
    made = [made_of(seed=3) for _ in range(2)]
    fork, before = torch.random.fork_rng, torch.get_rng_state()
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices=None: visited.append(devices) or fork(devices=devices))
    monkeypatch.setattr(torch, "manual_seed", lambda seed: pytest.fail("seeds the generators of all devices"))
    heads = [inputs.build_denoiser_with_discriminator().head for inputs in made]  # pyright: ignore[reportAttributeAccessIssue]
    assert visited == [[], []] and torch.equal(torch.get_rng_state(), before)
    for one, two in zip(*(head.parameters() for head in heads), strict=True):  # type: ignore[union-attr]
        assert torch.equal(one, two)


@pytest.mark.parametrize("name", ["dmd", "dmd2", "f_distill", "sid", "sida"])
def test_a_fake_score_is_compared_with_the_unguided_teacher(name: str) -> None:
    """A guided teacher denoises worse, so that a fake score that lags would pass; it costs no further evaluation."""
    found, calls = {}, []
    for scale in (1.0, 8.0):
        calls.clear()
        inputs = made_of(classes=3, guidance=scale)
        method = settings(SETTINGS[name]).build(inputs)
        inputs.teacher.denoiser.register_forward_hook(lambda *_: calls.append(1))
        output = method.phases(0)[0].loss(full_batch(3), FixedRandom())
        found[scale] = float(output.logs["teacher_denoise"])
        assert len(calls) == (1 if scale == 1 else 2)
        assert (float(output.logs["score_gap"]) > 0) == (scale != 1)  # that of the gradient, which is guided
    assert found[8.0] == pytest.approx(found[1.0], rel=1e-5)


@pytest.mark.parametrize("values", SETTINGS.values(), ids=SETTINGS)
def test_guidance_without_conditions_is_refused(values: dict[str, Any]) -> None:
    config = settings(values)
    if values["name"] in ("knowledge", "gan", "consistency_training", "instaflow"):
        config.build(made_of(guidance=2.0))  # they never ask the teacher
        return
    with pytest.raises(UserError, match="takes no conditions"):
        config.build(made_of(guidance=2.0))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "dmd2", "lambda_telling": 0}, "lambda_telling: found 0"),
        ({"name": "dmd2", "min_fraction": 0.9, "max_fraction": 0.1}, "min_fraction: found 0.9"),
        ({"name": "dmd2", "num_steps": 3, "places": [0.2, 0.4]}, "places: found .*, expected num_steps - 1 = 2"),
        ({"name": "f_distill", "lambda_gan": 0}, "lambda_gan: found 0"),
        ({"name": "sid", "max_fraction": 0}, "min_fraction: found 0.0"),
        ({"name": "consistency_training", "first_levels": 9, "last_levels": 3}, "last_levels: found 3"),
        (
            {"name": "consistency_training", "schedule": "ect", "last_levels": 9},
            "last_levels: found 9, expected nothing",
        ),
        ({"name": "consistency_training", "q": 3.0}, "q: found 3.0, expected nothing: schedule is song"),
        ({"name": "sid", "fake_levels": "uniform", "P_std": 2.0}, "P_std: found 2.0, expected nothing: fake_levels is"),
        ({"name": "progressive", "start_steps": 12}, "start_steps: found 12, expected final_steps 1 times"),
        ({"name": "progressive", "start_steps": 2, "final_steps": 4}, "start_steps: found 2"),
        ({"name": "progressive", "start_steps": 4, "long_rounds": 3}, "long_rounds: found 3, expected at most 2"),
        ({"name": "instaflow", "distil_from_step": 5, "num_steps": 2}, "num_steps: found 2, expected 1"),
    ],
)
def test_settings_that_contradict_each_other(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        settings({"regression": "l2", **values} if "regression" in values else values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "progressive", "start_steps": 32}, "start_steps: found 5 rounds in 4 steps, expected at least 5"),
        ({"name": "instaflow", "distil_from_step": 4}, "distil_from_step: found 4, expected less than"),
        ({"name": "instaflow", "reflows": 5}, "reflows: found 5, expected at most one per step"),
        ({"name": "dmd", "dm_from_step": 4}, "dm_from_step: found 4, expected less than training.steps 4"),
    ],
)
def test_trainings_too_short_for_the_stages(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        settings(values).check_length(4)


class Guided(torch.nn.Module):
    """mu(x, t, none) + w (mu(x, t, cond) - mu(x, t, none)), by hand."""

    def __init__(self, teacher: Any, scale: float):
        super().__init__()
        self.teacher, self.scale = teacher, scale

    def forward(self, x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        return self.with_unguided(x, t, cond)[0]

    def with_unguided(self, x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        none, plain = self.teacher(x, t, torch.full_like(cond, -1)), self.teacher(x, t, cond)
        return none + self.scale * (plain - none), plain


@pytest.mark.parametrize("name", ["dmd", "dmd2", "f_distill", "sid", "sida", "consistency distillation", "progressive"])
def test_guidance_is_the_teachers_alone(name: str) -> None:
    """Losses are those of a teacher that is guided by hand; fake score, generator and targets are not guided."""

    def losses(scale: float, by_hand: bool) -> dict[str, torch.Tensor]:
        inputs = made_of(classes=3, guidance=1.0 if by_hand else scale)
        method: Any = settings(SETTINGS[name]).build(inputs)
        for network in method.networks.values():
            for p in network.parameters():
                p.data.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
        if by_hand:
            owner = getattr(method, "schedule", method)
            owner.mu_base = Guided(inputs.teacher.denoiser, scale)
        found = {}
        for step in (0, 39):  # the first and, of methods in rounds, the last
            made = full_batch(3)
            for index, phase in enumerate(method.phases(step)):
                output = phase.loss(made, FixedRandom(index))
                made = replace(made, samples=output.samples if output.samples is not None else made.samples)
                found |= {f"{step} {phase.name} {key}": term.detach() for key, term in output.terms.items()}
        return found

    guided, by_hand, plain = losses(2.5, by_hand=False), losses(2.5, by_hand=True), losses(1.0, by_hand=False)
    for key, term in guided.items():
        torch.testing.assert_close(term, by_hand[key], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(guided[next(iter(guided))], plain[next(iter(plain))])
    if name == "progressive":  # later rounds learn from a student that has learnt the guidance
        assert torch.equal(guided["39 halving halving"], plain["39 halving halving"])


def test_a_start_below_the_second_step() -> None:
    config = settings({"name": "dmd2", "num_steps": 2})
    with pytest.raises(UserError, match="generator: found a start at t = 0.5, expected one above .*, the level of the"):
        config.build(made_of(t_init=0.5))
    settings({"name": "dmd2", "num_steps": 2, "places": [0.3]}).build(made_of(t_init=0.5))


def test_a_grid_too_coarse_for_the_steps() -> None:
    with pytest.raises(UserError, match="expected distinct ones; use fewer steps"):
        settings({"name": "progressive", "start_steps": 2048}).build(made_of(PROCESSES[2]))
