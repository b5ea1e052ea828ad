"""The embedded network for perceptual losses: smooth feature maps of images in model space."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

import unistep
from unistep.assets import embedded_folder
from unistep.errors import UserError
from unistep.evaluation.extractors.features import load_judge, load_perceptual, save_perceptual
from unistep.evaluation.extractors.network_file import PerceptualNetwork, read_file
from unistep.losses.regression import build_regression
from unistep.methods.config import Distance
from unistep.run.distance import distance_of


def test_the_embedded_one_is_frozen_and_differentiable() -> None:
    network = load_perceptual("embedded:fashion-mnist")
    x = (torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1).requires_grad_()
    maps = network(x)
    assert [tuple(m.shape) for m in maps] == [(2, 12, 28, 28), (2, 32, 14, 14), (2, 64, 7, 7)]
    torch.stack([m.square().mean() for m in maps]).sum().backward()
    assert (
        x.grad is not None and bool(x.grad.abs().sum() > 0) and not any(p.requires_grad for p in network.parameters())
    )


def test_the_embedded_one_tells_the_classes_apart() -> None:
    config, _, _ = read_file(embedded_folder("fashion-mnist") / "perceptual.safetensors", "unistep-perceptual/1")
    assert config["accuracy"] >= 0.9


def test_it_is_another_architecture_and_another_seed_than_the_judge() -> None:
    perceptual, judge = load_perceptual(), load_judge()
    kinds = [{type(m).__name__ for m in network.modules()} for network in (perceptual, judge.network)]
    assert {"GroupNorm", "SiLU"} <= kinds[0] and not kinds[0] & {"BatchNorm2d", "ReLU", "ResidualBlock"}
    assert {"BatchNorm2d", "ReLU", "ResidualBlock"} <= kinds[1]
    config, _, _ = read_file(embedded_folder("fashion-mnist") / "perceptual.safetensors", "unistep-perceptual/1")
    assert (config["recipe"]["seed"], judge.recipe["seed"]) == (1, 0)


def test_it_serves_the_regression_loss() -> None:
    distance = build_regression("perceptual", load_perceptual())
    x = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert distance(x, x).tolist() == [0, 0, 0]
    near, far = distance(x, x * 0.9), distance(x, -x)
    assert near.shape == (3,) and bool((near < far).all())


def test_its_maps_are_smooth_in_the_image() -> None:
    """Central differences in float64 agree with the gradient, which needs activations without kinks."""
    network = load_perceptual().double()
    x = torch.rand(1, 1, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def value(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([m.square().mean() for m in network(x)]).sum()

    direction = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    slope = torch.autograd.functional.jvp(value, x, direction)[1]
    h = 1e-4
    assert float((value(x + h * direction) - value(x - h * direction)) / (2 * h)) == pytest.approx(
        float(slope), rel=1e-5
    )


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32)])
def test_saving_and_loading(channels: int, size: int, tmp_path: Path) -> None:
    network = PerceptualNetwork(channels, size, 4)
    save_perceptual(tmp_path, network, {"accuracy": 0.5})
    loaded = load_perceptual(tmp_path)
    assert loaded.config == network.config
    assert loaded.logits(torch.zeros(2, channels, size, size, dtype=torch.uint8)).shape == (2, 4)
    with pytest.raises(UserError, match=r"found no perceptual\.safetensors in"):
        load_perceptual(tmp_path.parent)
    with pytest.raises(UserError, match="perceptual network: found no folder"):
        load_perceptual(tmp_path / "nowhere")


# ----------------------------------------------------------------------------------------------- for data of one's own


def taught(folder: Path, data: dict, network: dict) -> Path:
    training = {"steps": 1, "batch": 4, "precision": "fp32", "device": "cpu"}
    evaluation = {"judge": "train" if network["label_dim"] else None, "judge_steps": 40, "samples_during_training": 140}
    recipe = {"kind": "teach", "name": "mine", "about": "", "data": data, "network": network, "training": training}
    return unistep.teach({**recipe, "evaluation": evaluation}, out=folder, quiet=True)


NETWORK = {"type": "unet", "img_resolution": 8, "img_channels": 1, "model_channels": 8, "channel_mult": [1],
           "num_blocks": 1, "attn_resolutions": [], "label_dim": 10}  # fmt: skip


def test_teach_leaves_one_beside_its_judge_and_a_distillation_finds_it(tmp_path: Path) -> None:
    run = taught(tmp_path / "teacher", {"kind": "digits", "limit": 400}, NETWORK)
    network, judge = load_perceptual(run), load_judge(run / "judge")
    config, _, _ = read_file(run / "judge" / "perceptual.safetensors", "unistep-perceptual/1")
    assert config["accuracy"] > 0.3 and (config["recipe"]["seed"], judge.recipe["seed"]) == (1, 0)
    assert network.config["size"] == 8
    made = (run / "judge" / "perceptual.safetensors").stat().st_mtime_ns
    assert unistep.teach(run, quiet=True) == run  # goes on: nothing is trained again
    assert (run / "judge" / "perceptual.safetensors").stat().st_mtime_ns == made
    teacher = unistep.load_teacher(run)
    wanted = Distance("perceptual", str(run), 1.0)
    distance = distance_of(wanted, teacher, torch.device("cpu"), tmp_path)
    assert distance is not None and bool((distance(torch.zeros(2, 1, 8, 8), torch.ones(2, 1, 8, 8)) > 0).all())
    digest = hashlib.sha256((run / "judge" / "perceptual.safetensors").read_bytes()).hexdigest()
    known = json.loads((tmp_path / "run.json").read_text())["perceptual_network"]
    assert known == {"source": str(run), "sha256": digest}


def test_a_teacher_of_images_without_classes_leaves_none(tmp_path: Path) -> None:
    run = taught(tmp_path / "teacher", {"kind": "digits", "limit": 100}, {**NETWORK, "label_dim": 0})
    with pytest.raises(UserError, match=r"no perceptual\.safetensors in .*, expected one; .* choose regression multi"):
        load_perceptual(run)
