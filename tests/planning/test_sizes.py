"""Bytes of networks, gradients, moments, averages and checkpoints: those that a training really has."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_plan import CPU, settings, tiny_dmd, tiny_streams, tiny_teacher

from unistep.costing.kinds import kinds_of_steps
from unistep.costing.sizes import Sizes, nbytes, sizes_of, state
from unistep.networks.meta import copy_to_meta
from unistep.training import HealthMonitor
from unistep.training.checkpoint import Checkpoints
from unistep.training.state import TrainState
from unistep.training.step import train_step


def started(ema: bool = True) -> tuple[TrainState, Sizes]:
    teacher, config = tiny_teacher(), settings(**({} if ema else {"ema": None}))
    method = tiny_dmd(teacher)
    sizes = sizes_of(method, config, kinds_of_steps(method, config.steps), [teacher.denoiser])
    return TrainState.start(method, config, HealthMonitor(steps=config.steps)), sizes


def test_parameters_are_counted_by_hand() -> None:
    _, sizes = started()
    stem, label, block, head = 34 * 16 + 16, 3 * 16, 32 + 2 * (16 * 16 + 16), 16 * 2 + 2
    parameters, buffers = stem + label + block + head, 16
    assert sizes.networks == dict.fromkeys(("generator", "fake_score"), 4 * (parameters + buffers))
    assert sizes.frozen == sizes.exported == 4 * (parameters + buffers)
    assert (sizes.gradients, sizes.average) == (4 * parameters, 4 * parameters)
    assert sizes.moments == 2 * 2 * 4 * parameters


@pytest.mark.parametrize("ema", [True, False])
def test_a_training_state_has_these_bytes(ema: bool) -> None:
    state_, sizes = started(ema)
    tensors = state_.tensors()
    counters = [tensor for name, tensor in tensors.items() if name.endswith(".step")]
    assert nbytes(tensors.values()) - nbytes(counters) == sizes.checkpoint - sizes.described
    assert len(tensors) == sizes.tensors + sizes.averaged_tensors


def test_gradients_are_those_of_one_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    state_, sizes = started()
    config, seen = settings(), list[int]()
    for optimizer in state_.optimizers.values():
        step = optimizer.adam.step

        def note(step=step, *_: object) -> None:
            networks = state_.method.networks.values()
            seen.append(nbytes(p.grad for network in networks for p in network.parameters() if p.grad is not None))
            step()

        monkeypatch.setattr(optimizer.adam, "step", note)
    train_step(state_, tiny_streams(config, tiny_teacher()), config, CPU)
    assert max(seen) == sizes.gradients


def test_shapes_alone_give_the_same_sizes() -> None:
    teacher, config = tiny_teacher(), settings()
    blank = replace(tiny_teacher(), denoiser=copy_to_meta(teacher.denoiser))
    assert all(tensor.is_meta for tensor in state(blank.denoiser))
    assert not any(tensor.is_meta for tensor in state(teacher.denoiser))
    sizes = [sizes_of(method, config, kinds_of_steps(method, 12)) for method in (tiny_dmd(blank), tiny_dmd(teacher))]
    assert sizes[0] == sizes[1]


def test_a_checkpoint_on_the_disk_has_these_bytes(tmp_path: Path) -> None:
    state_, sizes = started()
    with torch.no_grad():
        path = Checkpoints(tmp_path).save(1, state_.tensors(), {})
    written = sum(file.stat().st_size for file in path.iterdir())
    assert written == pytest.approx(sizes.checkpoint, rel=0.1)


def test_ranks_share_what_learns_and_not_what_is_frozen() -> None:
    _, sizes = started()
    half = sizes.sharded(2)
    assert half.held - half.frozen == (sizes.held - sizes.frozen) / 2
    assert half.frozen == sizes.frozen
