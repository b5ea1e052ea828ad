"""A generator of several steps: the samplers' own trajectories, one evaluation each, and its folder."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unistep.diffusion.process import ContinuousVPProcess, DiscreteVPProcess, EDMProcess, FlowProcess
from unistep.diffusion.process.base import NoiseProcess
from unistep.diffusion.samplers import Consistency, Euler, seeded_normal
from unistep.errors import UserError
from unistep.networks import build_denoiser
from unistep.networks.generator import Generator, StepSchedule
from unistep.teachers import GaussianMixture, load_generator
from unistep.teachers.checkpoint import save_denoiser

PROCESSES = [EDMProcess(0.02, 10.0), ContinuousVPProcess(), DiscreteVPProcess.linear(), FlowProcess(shift=2.0)]
SEEDS = torch.arange(20)


def mixture(process: NoiseProcess) -> GaussianMixture:
    return GaussianMixture(torch.tensor([[1.0, 0.0], [-1.0, 0.5]]), 0.3, process)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_ode_steps_are_eulers(process: NoiseProcess) -> None:
    z, mu = seeded_normal(SEEDS, (2,)), mixture(process)
    later = tuple(process.sampling_times(4)[1:-1].tolist())
    found = Generator(mu, process, None, StepSchedule(later, "ode")).sample(z)
    torch.testing.assert_close(found, Euler(4)(mu, process, z).x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_steps_with_noise_are_the_consistency_samplers(process: NoiseProcess) -> None:
    z, mu = seeded_normal(SEEDS, (2,)), mixture(process)
    later = tuple(process.time(torch.tensor([0.7, 0.3], dtype=torch.float64)).tolist())
    found = Generator(mu, process, None, StepSchedule(later)).sample(z, None, SEEDS)
    expected = Consistency(3, times=later)(mu, process, z, None, SEEDS).x
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_one_step_is_one_evaluation_bit_for_bit() -> None:
    process = EDMProcess(0.02, 10.0)
    z, G = seeded_normal(SEEDS, (2,)), Generator(mixture(process), process, 2.5)
    assert torch.equal(G.sample(z), G(z))
    assert G.config() == {"t_init": 2.5}


def test_each_step_is_one_evaluation() -> None:
    calls: list[Tensor] = []
    process = EDMProcess(0.02, 10.0)
    mu = mixture(process)
    mu.register_forward_pre_hook(lambda module, inputs: calls.append(inputs[1]))
    G = Generator(mu, process, None, StepSchedule((3.0, 1.0)))
    G.sample(seeded_normal(SEEDS, (2,)), None, SEEDS)
    assert [float(t[0]) for t in calls] == [10.0, 3.0, 1.0]
    assert G.steps.count == 3


def test_fresh_noise_without_seeds_is_refused() -> None:
    process = EDMProcess(0.02, 10.0)
    with pytest.raises(UserError, match="seeds: found none"):
        Generator(mixture(process), process, None, StepSchedule((1.0,))).sample(torch.randn(3, 2))


CONFIG: dict[str, Any] = {
    "network": {"type": "mlp", "dim": 2, "width": 8, "num_blocks": 1}, "process": {"type": "edm"}, "shape": [2],
    "codec": {"type": "points"}, "conditioner": None,
}  # fmt: skip


@pytest.mark.parametrize("steps", [StepSchedule(), StepSchedule((3.0, 1.0)), StepSchedule((5.0,), "ode")])
def test_a_folder_gives_the_generator_back(steps: StepSchedule, tmp_path: Path) -> None:
    denoiser = build_denoiser(CONFIG)
    G = Generator(denoiser, denoiser.process, None, steps)
    save_denoiser(tmp_path / "generator", denoiser, {**CONFIG, **G.config()})
    found, config, _ = load_generator(tmp_path / "generator")
    assert found.steps == steps
    assert ("steps" in config) == (steps.count > 1)
    z = torch.randn(20, 2)
    assert torch.equal(found.sample(z, None, SEEDS), G.sample(z, None, SEEDS))


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([1.0], "steps: found \\[1.0\\], expected a mapping"),
        ({"later": [1.0, 3.0]}, "steps.later: found \\[1.0, 3.0\\], expected decreasing finite times"),
        ({"later": ["x"]}, "steps.later: found \\['x'\\], expected"),
        ({"later": [1.0], "between": "magic"}, "steps.between: found 'magic', expected 'noise' or 'ode'"),
        ({"later": [1.0], "steps": 2}, "steps.steps: unknown key; expected one of between, later"),
    ],
)
def test_a_folder_with_other_steps_is_refused_in_one_line(steps: Any, words: str, tmp_path: Path) -> None:
    save_denoiser(tmp_path / "generator", build_denoiser(CONFIG), {**CONFIG, "t_init": None, "steps": steps})
    with pytest.raises(UserError, match=words):
        load_generator(tmp_path / "generator")
