"""Learning rates, AdamW, clipping and the average against their formulas."""

import math

import pytest
import torch
from stand_ins import Blocks
from torch import nn

from unistep.errors import UserError
from unistep.training import EMA, EMAConfig, OptimConfig
from unistep.training.optim import build_optimizer, check_names, config_for, learning_rate

ADAM_KEYS = ("step", "exp_avg", "exp_avg_sq")


def test_constant_schedule_with_warm_up_and_again_after_milestones() -> None:
    config = OptimConfig(lr=1.0, warmup=4)
    found = [learning_rate(config, step, 20, (10,)) for step in range(16)]
    rise = [0.25, 0.5, 0.75, 1.0]
    assert found == [*rise, *[1.0] * 6, *rise, 1.0, 1.0]


def test_cosine_schedule() -> None:
    config = OptimConfig(lr=2.0, schedule="cosine", final_fraction=0.1)
    for step in (0, 5, 50, 99):
        expected = 2.0 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / 100)))
        assert learning_rate(config, step, 100) == pytest.approx(expected)
    assert learning_rate(config, 100, 100) == pytest.approx(0.2)


def test_linear_schedule() -> None:
    config = OptimConfig(lr=2.0, schedule="linear", final_fraction=0.5)
    assert [learning_rate(config, step, 4) for step in range(5)] == [2.0, 1.75, 1.5, 1.25, 1.0]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_schedule_that_restarts_is_that_of_each_stage(schedule: str) -> None:
    config = OptimConfig.model_validate({"lr": 2.0, "schedule": schedule, "restart": True, "warmup": 2})
    alone = config.model_copy(update={"restart": False})
    found = [learning_rate(config, step, 12, (3, 8)) for step in range(12)]
    assert found == [learning_rate(alone, step, length) for length in (3, 5, 4) for step in range(length)]


def test_adamw_is_torch_adamw() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    optimizer = build_optimizer(ours, OptimConfig(lr=0.1, weight_decay=0.3, betas=(0.5, 0.9), clip=None), "g")
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.1, weight_decay=0.3, betas=(0.5, 0.9), fused=False)
    for _ in range(4):
        x = torch.randn(5, 3)
        for network, adam in ((ours, optimizer.adam), (theirs, reference)):
            adam.zero_grad()
            network(x).square().sum().backward()
            adam.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_radam_is_torch_radam_and_skips_what_is_not_finite() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    config = OptimConfig.model_validate({"algorithm": "radam", "lr": 0.1, "weight_decay": 0.0, "betas": (0.5, 0.9)})
    optimizer = build_optimizer(ours, config, "g")
    keys = set(optimizer.state())
    reference = torch.optim.RAdam(theirs.parameters(), lr=0.1, betas=(0.5, 0.9))
    for step in range(8):
        x = torch.randn(5, 3)
        for network in (ours, theirs):
            network(x).square().sum().backward()
        optimizer.update(torch.tensor(0.0))
        reference.step()
        reference.zero_grad()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, msg=lambda m, n=step: f"step {n}: {m}")
    assert set(optimizer.state()) == keys == {f"{n}.{k}" for n in ("weight", "bias") for k in ADAM_KEYS}
    before = ours.weight.clone()
    ours(x).square().sum().backward()
    optimizer.update(torch.tensor(1.0))
    assert torch.equal(ours.weight, before)


def test_clipping_scales_the_whole_gradient() -> None:
    network = nn.Linear(2, 1)
    network(torch.full((1, 2), 30.0)).sum().backward()
    optimizer = build_optimizer(network, OptimConfig(clip=2.0), "g")
    norm = torch.stack([*optimizer.gradient_norms("line").values()]).norm()
    assert norm == pytest.approx(math.sqrt(30**2 + 30**2 + 1))
    optimizer.clip(norm)
    assert torch.stack([*optimizer.gradient_norms("line").values()]).norm() == pytest.approx(2.0, rel=1e-5)


def test_moments_are_forgotten_at_a_milestone_only_if_asked() -> None:
    for asked in (True, False):
        network = nn.Linear(2, 1)
        network(torch.ones(1, 2)).sum().backward()
        optimizer = build_optimizer(network, OptimConfig(reset_at_milestones=asked), "g")
        optimizer.adam.step()
        optimizer.set_step(4, 10, (5,))
        assert all(bool(v.any()) for v in optimizer.state().values())
        optimizer.set_step(5, 10, (5,))
        assert all(bool(v.any()) is not asked for v in optimizer.state().values())


def test_settings_by_network() -> None:
    optim = {"default": OptimConfig(lr=1.0), "fake_score": OptimConfig(lr=2.0)}
    assert config_for(optim, "generator").lr == 1.0
    assert config_for(optim, "fake_score").lr == 2.0
    with pytest.raises(UserError, match="expected an entry for 'generator' or a default"):
        config_for({"fake_score": OptimConfig()}, "generator")
    with pytest.raises(UserError, match="generater: no such network; expected one of default, generator"):
        check_names({"generater": OptimConfig()}, {"generator": nn.Linear(1, 1)})
    with pytest.raises(UserError, match="no parameter requires gradients"):
        build_optimizer(nn.Linear(1, 1).requires_grad_(False), OptimConfig(), "g")


def averaged(config: EMAConfig, values: list[float]) -> list[float]:
    """The average's path while a parameter takes the values."""
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(values[0])
    ema, path = EMA(network, config), []
    for step, value in enumerate(values[1:]):
        network.weight.data.fill_(value)
        ema.update(step)
        path.append(float(ema.shadow["weight"]))
    return path


def test_average_against_the_closed_form() -> None:
    d, values = 0.9, [1.0, 2.0, -1.0, 4.0]
    expected = d**3 * 1.0 + (1 - d) * (d**2 * 2.0 + d * -1.0 + 4.0)
    assert averaged(EMAConfig(decay=d, ramp_up=None), values)[-1] == pytest.approx(expected, rel=1e-6)


def test_half_life() -> None:
    path = averaged(EMAConfig(half_life=8.0, ramp_up=None), [1.0, *[0.0] * 16])
    assert path[7] == pytest.approx(0.5, rel=1e-5)
    assert path[15] == pytest.approx(0.25, rel=1e-5)
    same = averaged(EMAConfig(decay=0.5 ** (1 / 8), ramp_up=None), [1.0, *[0.0] * 16])
    assert path == pytest.approx(same, rel=1e-6)


def test_ramp_up_forgets_the_start() -> None:
    ema = EMA(nn.Linear(1, 1), EMAConfig(half_life=100.0, ramp_up=0.1))
    assert ema.decay(0) == 0.0
    assert ema.decay(50) == pytest.approx(0.5 ** (1 / 5))
    assert ema.decay(5000) == pytest.approx(0.5 ** (1 / 100))
    assert EMA(nn.Linear(1, 1), EMAConfig(decay=0.0)).decay(9) == 0.0
    assert averaged(EMAConfig(half_life=100.0), [9.0, 2.0])[0] == 2.0


def test_average_is_lent_and_given_back() -> None:
    network = Blocks(2, 1)
    ema = EMA(network, EMAConfig(half_life=3.0))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    for value in ema.shadow.values():
        value.zero_()
    with pytest.raises(RuntimeError), ema.applied() as lent:
        assert not any(bool(p.any()) for p in lent.parameters())
        raise RuntimeError
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    exported = ema.state_dict()
    assert exported.keys() == before.keys()
    assert exported["shift"] == 0.25 and not exported["blocks.0.weight"].any()


def test_one_of_half_life_and_decay() -> None:
    for wrong in ({}, {"half_life": 1.0, "decay": 0.5}):
        with pytest.raises(ValueError, match="expected exactly one of the two"):
            EMAConfig(**wrong)
