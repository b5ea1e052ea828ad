"""Methods that carry networks along go on from a checkpoint as if they had never stopped."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file
from small import made_of
from torch import Tensor

from unistep.methods.config import MethodConfig
from unistep.methods.registry import AnyMethod
from unistep.training import Hooks, Streams, TensorImages, TrainingConfig, View, train

METHODS: list[dict[str, Any]] = [
    {"name": "progressive", "images": "data", "start_steps": 8},  # rounds begin at 0, 4 and 8
    {"name": "consistency_training", "last_levels": 9},
    {"name": "dmd2"},
    {"name": "f_distill", "divergence": "kl"},
]


def run(values: dict[str, Any], folder: Path, hooks: Hooks | None = None) -> dict[str, Tensor]:
    """Twelve steps; the tensors of the last checkpoint."""
    settings = TrainingConfig.model_validate(
        {"steps": 12, "batch": 8, "optim": {"default": {"lr": 1e-2}}, "checkpoint": {"every_minutes": None},
         "preview_every": 1, "device": "cpu"}
    )  # fmt: skip
    config: MethodConfig = TypeAdapter(AnyMethod).validate_python(values)
    method = config.build(made_of(steps=12))
    points = torch.randn(40, 2, generator=torch.Generator().manual_seed(5))
    streams = Streams(seed=0, batch=8, images=TensorImages(points))
    train(method, streams, settings, folder, hooks)
    (file,) = max((folder / "checkpoints").glob("step-*")).glob("*.safetensors")
    return load_file(file)


def stop_at(step: int) -> Hooks:
    """Ctrl-C during the preview after a step."""

    def preview(view: View) -> None:
        if view.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    return Hooks(preview=preview)


@pytest.mark.parametrize("values", METHODS, ids=lambda values: values["name"])
def test_six_steps_and_six_more_are_twelve(values: dict[str, Any], tmp_path: Path) -> None:
    whole = run(values, tmp_path / "whole")
    run(values, tmp_path / "halves", stop_at(5))
    found = run(values, tmp_path / "halves")
    assert found.keys() == whole.keys()
    assert any(name.startswith("carried.") for name in whole) == (values["name"] != "dmd2")
    assert all(torch.equal(found[name], value) for name, value in whole.items())
