"""Two gloo ranks, replicated and sharded, against one rank; checkpoints travel both ways."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from stand_ins import config, method, run, stop_after
from tiny_dmd import METHODS, ON_TWO_RANKS, first_gradients, run_method
from tiny_edm2 import edm2_steps
from torch import Tensor

from unistep.training.checkpoint import Checkpoints
from unistep.training.health import HealthMonitor
from unistep.training.state import TrainState


def final_state(folder: Path, step: int = 10) -> dict[str, Tensor]:
    """The checkpoint of any number of ranks, loaded on one."""
    settings = config()
    state = TrainState.start(method(settings), settings, HealthMonitor())
    store = Checkpoints(folder / "checkpoints")
    store.load(store.path(step), state.tensors())
    return state.tensors()


def raw_tensors(folder: Path) -> dict[str, Tensor]:
    """The last checkpoint's tensors from the shapes in its manifest."""
    newest = Checkpoints(folder / "checkpoints").latest()
    assert newest is not None
    shapes = json.loads((newest / "manifest.json").read_text())["tensors"]
    tensors = {name: torch.zeros(shape) for name, shape in shapes.items()}
    Checkpoints(folder / "checkpoints").load(newest, tensors)
    return tensors


def start_ranks(folder: Path) -> list[subprocess.Popen[str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1",
                        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}  # fmt: skip
    command = [sys.executable, str(Path(__file__).with_name("two_ranks.py")), str(folder)]
    return [
        subprocess.Popen(command, env=env | {"RANK": rank, "LOCAL_RANK": rank}, stderr=subprocess.PIPE, text=True)
        for rank in ("0", "1")
    ]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder after one rank and two ranks have run in it."""
    folder = tmp_path_factory.mktemp("ranks")
    run(folder / "one")
    for name in METHODS:
        run_method(folder / f"one-{name}", name)
    save_file(first_gradients(), folder / "one-gradients.safetensors")
    run(folder / "half", hooks=stop_after(4), preview_every=1)
    for strategy in ("ddp", "fsdp"):
        shutil.copytree(folder / "half", folder / f"{strategy}-from-one")
    ranks = start_ranks(folder)
    try:
        for process in ranks:
            _, errors = process.communicate(timeout=900)
            assert process.returncode == 0, errors
    finally:
        for process in ranks:
            process.kill()
            process.communicate()
    return folder


@pytest.mark.parametrize("run", ["ddp", "ddp-accumulated", "ddp-from-one", "fsdp-accumulated", "fsdp-from-one"])
def test_two_ranks_learn_what_one_learns(out: Path, run: str) -> None:
    found, expected = final_state(out / run), final_state(out / "one")
    for name, value in expected.items():  # weights, moments and average after ten steps
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_resume_on_one(out: Path, strategy: str) -> None:
    folder = out / f"{strategy}-to-one"
    assert Checkpoints(folder / "checkpoints").steps() == [4]
    run(folder, preview_every=1)
    expected = final_state(out / "one")
    for name, value in final_state(folder).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_gradients_of_dmd_on_u_nets(out: Path, strategy: str) -> None:
    found, expected = (load_file(out / f"{place}-gradients.safetensors") for place in (strategy, "one"))
    assert found.keys() == expected.keys()
    assert {name.split(":")[0] for name in expected} == {"generator", "fake_score"}
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0, name
        atol = 1e-5 * float(gradient.abs().max())
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


def test_weights_of_edm2_keep_unit_length_on_two_ranks_too(out: Path) -> None:
    found, expected = load_file(out / "ddp-edm2.safetensors"), edm2_steps()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-3, msg=lambda m, n=name: f"{n}: {m}")
        assert weight.ndim == 0 or float((weight.flatten(1).square().mean(1).sqrt() - 1).abs().max()) < 0.02


@pytest.mark.parametrize(("strategy", "method"), ON_TWO_RANKS)
def test_methods_on_u_nets(out: Path, strategy: str, method: str) -> None:
    found, expected = raw_tensors(out / f"{strategy}-{method}"), raw_tensors(out / f"one-{method}")
    for name, value in expected.items():
        if name.startswith("optim") and "exp_avg" in name:  # of three steps' gradients, at weights that drift apart
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
        else:
            torch.testing.assert_close(found[name], value, rtol=0, atol=5e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_all_ranks_stop_together_name_the_culprit_and_apply_nothing(out: Path, strategy: str) -> None:
    for rank in (0, 1):
        message = (out / f"broken-{strategy}-{rank}.txt").read_text()
        assert message.startswith("loss term critic is not finite: network critic, phase critic, step 0, rank 1")
        assert not message.endswith("moved")
