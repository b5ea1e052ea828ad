"""EDM2's forced weight normalization in a distillation: copies of the teacher keep unit length, the teacher its own."""

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from unistep.methods.inputs import MethodInputs
from unistep.methods.sida import SiDAConfig
from unistep.training import Streams, TensorImages, TrainingConfig, prepare_network, train

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from tiny_edm2 import edm2_steps, edm2_teacher

CPU = torch.device("cpu")


def lengths(weights: Mapping[str, Tensor]) -> Tensor:
    """Root mean square of each weight vector."""
    return torch.cat([w.detach().flatten(1).square().mean(1).sqrt() for w in weights.values() if w.ndim > 1])


def test_trainable_copies_keep_unit_length_over_steps_of_adamw() -> None:
    teacher = edm2_teacher()
    copy = teacher.trainable_copy()
    before = {name: value.clone() for name, value in teacher.denoiser.state_dict().items()}
    adam, rng = torch.optim.AdamW(copy.parameters(), lr=3e-2), torch.Generator().manual_seed(0)
    for _ in range(12):
        x, target = torch.randn(2, 4, 1, 8, 8, generator=rng)
        (copy(x, torch.ones(4)) - target).square().mean().backward()
        adam.step()
        adam.zero_grad()
    copy(x, torch.ones(4))
    found = lengths(dict(copy.named_parameters()))
    torch.testing.assert_close(found, torch.ones_like(found), rtol=0, atol=1e-3)
    teacher(x, torch.ones(4))
    assert all(torch.equal(value, before[name]) for name, value in teacher.denoiser.state_dict().items())


def test_sida_trains_edm2_with_it(tmp_path: Path) -> None:
    """Where phases take turns: after a step only the update itself is left in the lengths."""
    settings = TrainingConfig.model_validate(
        {"steps": 4, "batch": 4, "device": "cpu", "precision": "fp32", "optim": {"default": {"lr": 2e-2}},
         "checkpoint": {"every_minutes": None}, "ema": None}
    )  # fmt: skip
    teacher = edm2_teacher()
    before = {name: value.clone() for name, value in teacher.denoiser.state_dict().items()}

    def prepare(network: nn.Module) -> nn.Module:
        return prepare_network(network, settings, CPU)

    made_of = MethodInputs(teacher=teacher, copy=teacher.trainable_copy, prepare=prepare, steps=4, t_init=2.5)
    method = SiDAConfig(name="sida").build(made_of)
    images = TensorImages(torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    train(method, Streams(seed=0, batch=4, images=images), settings, tmp_path)
    for network in method.networks.values():
        layers = {name: p for name, p in network.named_parameters() if "head" not in name}
        assert float((lengths(layers) - 1).abs().max()) < 0.02
    assert all(torch.equal(value, before[name]) for name, value in teacher.denoiser.state_dict().items())


def test_large_steps_with_two_forward_passes_each() -> None:
    found = lengths(edm2_steps())
    assert float((found - 1).abs().max()) < 0.02
