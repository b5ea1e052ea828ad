"""Nothing that is not finite is applied, although the step waits for its flags only once, at its end."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from stand_ins import TwoPhases, config, method, streams
from torch import Tensor, nn

from unistep.methods.base import Batch, LossOutput, Phase, Random, repeat_update
from unistep.training import NonFiniteError
from unistep.training.finite import FiniteCheck, PhaseValues
from unistep.training.health import HealthMonitor
from unistep.training.optim import NetworkOptimizer
from unistep.training.state import TrainState
from unistep.training.step import train_step

CPU = torch.device("cpu")


class Spoilt(TwoPhases):
    """A generator and three updates of the critic, of which one goes wrong in the third step."""

    def __init__(self, way: str, at: str, *networks: nn.Module):
        super().__init__(*networks)
        self.way, self.at, self.step, self.before = way, at, 0, dict[str, Tensor]()

    def phases(self, step: int) -> tuple[Phase, ...]:
        self.step = step
        generator, critic = super().phases(step)
        updates = repeat_update(replace(critic, reuses_samples=True), 3)
        return generator, *(replace(phase, loss=partial(self.loss, phase.name)) for phase in updates)

    def loss(self, phase: str, batch: Batch, rng: Random) -> LossOutput:
        if batch.samples is None and phase != "generator":
            batch = Batch(size=batch.size, samples=rng.normal(batch.size, 2))
        output = super().loss(phase, batch, rng)
        if self.step == 2 and phase == self.at:
            self.before = {
                f"{n}.{k}": v.clone() for n, net in self.networks.items() for k, v in net.state_dict().items()
            }
            term = next(iter(output.terms.values()))
            if self.way == "term":
                term.data[1] = float("nan")
            else:
                term.register_hook(lambda g: g * float("inf"))
        return output


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("way", "at"), [("term", "critic"), ("gradient", "generator"), ("gradient", "critic.1")])
def test_neither_the_update_nor_those_after_it_are_made(way: str, at: str, fused: bool) -> None:
    settings = config()
    spoilt = Spoilt(way, at, *method(settings).networks.values())
    state = TrainState.start(spoilt, settings, HealthMonitor())
    for optimizer in state.optimizers.values():
        assert optimizer.adam.defaults["fused"]
        optimizer.adam.defaults["fused"] = optimizer.adam.param_groups[0]["fused"] = fused
    for _ in range(2):
        train_step(state, streams(settings), settings, CPU)
    moments = {n: {k: v.clone() for k, v in o.state().items()} for n, o in state.optimizers.items()}
    network = "generator" if at == "generator" else "critic"
    what = f"loss term {network}" if way == "term" else "gradient of blocks.0.weight"
    with pytest.raises(NonFiniteError, match=f"^{what} is not finite: network {network}, phase {at}, step 2, rank 0"):
        train_step(state, streams(settings), settings, CPU)
    assert state.step == 2
    for name, net in spoilt.networks.items():
        for key, value in net.state_dict().items():
            assert torch.equal(value, spoilt.before[f"{name}.{key}"]), name
            assert value.isfinite().all()
    if fused and at != "critic.1":  # whose network was updated once in the step before that
        assert all(torch.equal(v, moments[network][k]) for k, v in state.optimizers[network].state().items())


@pytest.mark.parametrize("fused", [True, False])
def test_where_all_is_finite_updates_are_adam_s(fused: bool) -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(3, 2) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    adams = [torch.optim.AdamW(layer.parameters(), lr=0.1, fused=fused) for layer in layers]
    network = NetworkOptimizer("layers", dict(layers[0].named_parameters()), adams[0], config().optim["default"])
    for _ in range(3):
        x = torch.randn(4, 3)
        for layer in layers:
            layer(x).square().sum().backward()
        network.update(torch.zeros(()))
        adams[1].step()
        adams[1].zero_grad()
    for p, q in zip(*(layer.parameters() for layer in layers), strict=True):
        assert torch.equal(p, q) and p.grad is None


def test_a_step_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[int] = []
    tolist = Tensor.tolist

    def counting(tensor: Tensor) -> Any:
        fetched.append(tensor.numel())
        return tolist(tensor)

    settings = config()
    spoilt = Spoilt("term", "nowhere", *method(settings).networks.values())
    state, source = TrainState.start(spoilt, settings, HealthMonitor()), streams(settings)
    monkeypatch.setattr(Tensor, "tolist", counting)
    train_step(state, source, settings, CPU)
    assert fetched == [4]  # the flags of four phases


def test_a_norm_that_overflows_is_named_as_such() -> None:
    values = PhaseValues("p", 7, {"a": torch.tensor(True)}, {}, {"net": torch.tensor(float("inf"))},
                         {"net": {"w": torch.tensor(3e38), "b": torch.tensor(3e38)}})  # fmt: skip
    check = FiniteCheck()
    assert check.note(values).tolist() == 1
    with pytest.raises(NonFiniteError, match="^gradient norm is not finite: network , phase p, step 7"):
        check.require_finite()
