"""Reflow: lines through both ends of a pair, and in closed form paths that become straight and stay so."""

import dataclasses

import pytest
import torch
from fixed_random import FixedRandom
from small import PROCESSES, full_batch, made_of, names
from torch import Tensor, nn

from unistep.diffusion.process import FlowProcess
from unistep.diffusion.process.base import NoiseProcess
from unistep.diffusion.process.noising import data_time, noised
from unistep.diffusion.samplers import Euler
from unistep.diffusion.weighting import training_weighting
from unistep.methods import Batch
from unistep.methods.instaflow import InstaFlow, InstaFlowConfig
from unistep.networks.generator import first_level

SPREAD = torch.tensor([0.3, 1.4])


def make(process: NoiseProcess = PROCESSES[0], steps: int = 40, **settings: object) -> InstaFlow:
    config = InstaFlowConfig(name="instaflow", regression="l2", **settings)  # type: ignore[arg-type]
    return config.build(made_of(process, steps=steps))


@pytest.mark.parametrize("process", PROCESSES, ids=names)
def test_the_line_of_a_pair_runs_through_both_ends(process: NoiseProcess) -> None:
    z, x = torch.randn(20, 2), torch.randn(20, 2)
    eps = make(process).eps(z, x)
    x_T, T = first_level(process, None, z)
    torch.testing.assert_close(noised(process, x, T, eps), x_T, rtol=1e-4, atol=1e-4)
    data = torch.full((20,), data_time(process))
    torch.testing.assert_close(noised(process, x, data, eps), x)
    if isinstance(process, FlowProcess):
        assert torch.equal(eps, z)


class Independent(nn.Module):
    """E[x | x_t] of data N(0, SPREAD^2) with independent noise: the teacher's flow."""

    def forward(self, x_t: Tensor, cond: None, t: Tensor) -> Tensor:
        alpha, sigma = 1 - t[:, None], t[:, None]
        return alpha * SPREAD**2 / ((alpha * SPREAD) ** 2 + sigma**2) * x_t


class Coupled(nn.Module):
    """E[x | x_t] where x = SPREAD z, the pairs that the teacher's ODE makes of noise: the flow after reflow."""

    def forward(self, x_t: Tensor, cond: None, t: Tensor) -> Tensor:
        return SPREAD / ((1 - t[:, None]) * SPREAD + t[:, None]) * x_t


def crookedness(flow: nn.Module, z: Tensor, x: Tensor) -> float:
    """Mean of |(z - x) - v(x_t, t)|^2 over the paths, Rectified Flow's S: the reflow loss itself."""
    method = make(FlowProcess())
    velocity = training_weighting("velocity", FlowProcess())  # that of a teacher trained as a flow
    method.teacher, method.generator = dataclasses.replace(method.teacher, weighting=velocity), flow
    (phase,) = method.phases(0)
    return float(phase.loss(Batch(size=len(z), pair_z=z, pair_x=x), FixedRandom(3)).total())


def test_the_reflow_loss_is_the_distance_of_velocities() -> None:
    grid = (torch.arange(1000) + 0.5)[:, None] / 1000
    x_over_z = (1 - grid) * SPREAD + grid  # x_t of a pair (z, SPREAD z), for z = 1
    gain = (1 - grid) * SPREAD**2 / (((1 - grid) * SPREAD).square() + grid**2)
    velocity = (x_over_z - gain * x_over_z) / grid  # (x_t - mu) / t
    expected = float(((1 - SPREAD) - velocity).square().mean())
    z = torch.randn(40_000, 2, generator=torch.Generator().manual_seed(5))
    assert crookedness(Independent(), z, SPREAD * z) == pytest.approx(expected, rel=0.05)


def test_in_closed_form_reflow_makes_paths_straight_and_they_stay_so() -> None:
    process, z = FlowProcess(), torch.randn(2000, 2)

    def ends(flow: nn.Module, num_steps: int) -> Tensor:
        return Euler(num_steps)(lambda x, t, cond: flow(x, cond, t), process, z).x

    torch.testing.assert_close(ends(Independent(), 1000), SPREAD * z, rtol=2e-2, atol=2e-3)  # the ODE is x = SPREAD z
    before = crookedness(Independent(), torch.randn(2000, 2), SPREAD * torch.randn(2000, 2))
    same_pairs = crookedness(Independent(), z, SPREAD * z)
    after = crookedness(Coupled(), z, SPREAD * z)
    assert before > same_pairs > 1e-3
    assert after < 1e-6
    torch.testing.assert_close(ends(Coupled(), 1), ends(Coupled(), 50), rtol=1e-4, atol=1e-4)
    assert crookedness(Coupled(), z, ends(Coupled(), 1)) <= after + 1e-6  # reflowed once more


def test_the_stages_of_a_training() -> None:
    method = make(steps=40, reflows=3, distil_from_step=30)
    assert method.milestones() == {"generator": (10, 20, 30)}
    assert [method.phases(step)[0].name for step in (0, 9, 10, 29, 30)] == [
        "reflow", "reflow", "reflow.own", "reflow.own", "distillation"
    ]  # fmt: skip
    assert make(reflows=1).milestones() == {"generator": ()}
    assert not make(reflows=1).auxiliary_networks


def test_later_stages_learn_from_the_pairs_of_the_flow_before() -> None:
    method = make(steps=20, reflows=1, distil_from_step=10, solver_steps=4)
    with torch.no_grad():
        for p in method.generator.parameters():
            p.mul_(0.5)
    method.after_step(8)
    assert any(not torch.equal(p, q) for p, q in zip(*pairs_of_parameters(method), strict=True))
    method.after_step(9)
    assert all(torch.equal(p, q) for p, q in zip(*pairs_of_parameters(method), strict=True))
    z, x, _ = method.own_pairs(full_batch(), FixedRandom(2))
    assert torch.equal(z, FixedRandom(2).normal(len(z), 2))
    expected = Euler(4)(lambda x, t, cond: method.generator(x, cond, t), method.process, z).x
    torch.testing.assert_close(x, expected)
    loss = method.phases(10)[0].loss(full_batch(), FixedRandom(2)).terms["distil"]
    torch.testing.assert_close(loss, (method.generator(z) - x).square().mean(1))


def pairs_of_parameters(method: InstaFlow) -> tuple[list[Tensor], list[Tensor]]:
    return list(method.flow.parameters()), list(method.generator.parameters())
