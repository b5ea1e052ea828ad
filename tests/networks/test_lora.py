"""Adapters on shared weights: who learns, who does not, and what the backward pass sees when others have run since."""

import sys
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor, nn

from unistep.diffusion.process import DiscreteVPProcess
from unistep.errors import UserError
from unistep.networks.lora import Adapted, LoRAConfig, sharing_copy
from unistep.networks.state_dict import load_strictly
from unistep.teachers.diffusers import Options, teacher_from_pipeline
from unistep.teachers.module import teacher_from_module
from unistep.teachers.teacher import Teacher
from unistep.training.config import TrainingConfig
from unistep.training.prepare import prepare_network

sys.path.insert(0, str(Path(__file__).parents[1] / "teachers"))
import tiny_pipelines as tiny

CPU = torch.device("cpu")
T = torch.tensor([300.0, 900.0])


def lora(*layers: str, **changes: Any) -> LoRAConfig:
    return LoRAConfig.model_validate({"rank": 2, "alpha": 4.0, "target_modules": layers or None} | changes)


@pytest.fixture
def teacher() -> Teacher:
    return teacher_from_pipeline(diffusers.DDPMPipeline(tiny.unet_2d(), diffusers.DDPMScheduler()), Options(compare=0))


LAYERS = ("to_q", "to_v", "conv1", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv")


def adapted(teacher: Teacher, moved: int | None = None, **settings: Any) -> Adapted:
    """An adapter on a teacher's weights, ready for training; `moved` by random values of that seed, or B = 0."""
    network = Adapted(sharing_copy(teacher.denoiser), lora(*LAYERS), seed=0)
    if moved is not None:
        rng = torch.Generator().manual_seed(moved)
        with torch.no_grad():
            for p in network.parameters():
                p.add_(0.1 * torch.randn(p.shape, generator=rng))
    prepare_network(network, TrainingConfig.model_validate({"steps": 1, "batch": 2, **settings}), CPU)
    return network


class Timeless(nn.Sequential):
    """A network of somebody's own."""

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return super().forward(x_t)


def own_teacher() -> Teacher:
    network = Timeless(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 1))
    return teacher_from_module(network, DiscreteVPProcess.linear(), "eps", (3, 8, 8))


def x_t(seed: int = 0) -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def gradients(network: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_at_first_all_roles_are_the_teacher_bit_for_bit_on_the_same_weights(teacher: Teacher) -> None:
    roles = [adapted(teacher), adapted(teacher)]
    assert all(torch.equal(role(x_t(), T), teacher(x_t(), T)) for role in roles)
    weights = {p.data_ptr() for p in teacher.denoiser.parameters()}
    for role in roles:
        seen = {p.data_ptr() for p in role.denoiser.parameters()}
        own = {p.data_ptr() for p in role.parameters()}
        assert seen == weights | own and not own & weights
    assert not {p.data_ptr() for p in roles[0].parameters()} & {p.data_ptr() for p in roles[1].parameters()}
    names = set(roles[0].state_dict())
    assert names == dict(roles[0].named_parameters()).keys()
    assert all(name.startswith("network.") and name.endswith((".lora_A.weight", ".lora_B.weight")) for name in names)


def test_a_step_of_one_role_moves_its_adapter_alone(teacher: Teacher) -> None:
    one, other = adapted(teacher, moved=1), adapted(teacher, moved=2)
    answers = teacher(x_t(), T), other(x_t(), T).detach()
    kept = state(teacher.denoiser), state(other), state(one)
    adam = torch.optim.AdamW(one.parameters(), lr=0.1)
    one(x_t(), T).square().mean().backward()
    adam.step()
    assert gradients(one).keys() == dict(one.named_parameters()).keys()
    assert not gradients(teacher.denoiser) and not gradients(other)
    assert all(torch.equal(kept[0][name], value) for name, value in teacher.denoiser.state_dict().items())
    assert all(torch.equal(kept[1][name], value) for name, value in other.state_dict().items())
    assert all(not torch.equal(kept[2][name], value) for name, value in one.state_dict().items())
    assert torch.equal(teacher(x_t(), T), answers[0]) and torch.equal(other(x_t(), T), answers[1])


@pytest.mark.parametrize("again", [False, True], ids=["kept", "computed again"])
def test_a_backward_pass_sees_its_own_adapter_whoever_has_run_since(teacher: Teacher, again: bool) -> None:
    alone = adapted(teacher, moved=1)
    alone(x_t(), T).square().mean().backward()
    one, other = (adapted(teacher, moved=seed, gradient_checkpointing=again) for seed in (1, 2))
    loss, elsewhere = one(x_t(), T).square().mean(), other(x_t(1), T).square().mean()
    teacher(x_t(2), T)
    with torch.no_grad():
        other(x_t(3), T)
    loss.backward()
    found, expected = gradients(one), gradients(alone)
    assert not gradients(other) and found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    elsewhere.backward()
    assert gradients(other).keys() == expected.keys()
    assert all(torch.equal(gradients(one)[name], value) for name, value in expected.items())


def ready(teacher: Teacher, **settings: Any) -> nn.Module:
    config = TrainingConfig.model_validate({"steps": 1, "batch": 2, **settings})
    return prepare_network(teacher.trainable_copy(), config, CPU)


@pytest.mark.parametrize("make", [adapted, ready], ids=["LoRA", "copy"])
def test_gradient_checkpointing_computes_blocks_twice_and_changes_no_gradient(teacher: Teacher, make: Any) -> None:
    def run(again: bool) -> tuple[dict[str, Tensor], int]:
        network, calls = make(teacher, gradient_checkpointing=again), []
        inner = getattr(network, "denoiser", network).network
        inner.down_blocks[0].resnets[0].register_forward_pre_hook(lambda *_: calls.append(None))
        network(x_t(), T).square().mean().backward()
        return gradients(network), len(calls)

    (plain, once), (recomputed, twice) = run(False), run(True)
    assert (once, twice) == (1, 2) and plain.keys() == recomputed.keys()
    assert all(torch.equal(recomputed[name], value) for name, value in plain.items())


def test_only_networks_of_diffusers_checkpoint_gradients(teacher: Teacher) -> None:
    config = TrainingConfig.model_validate({"steps": 1, "batch": 2, "gradient_checkpointing": True})
    with pytest.raises(UserError, match="training.gradient_checkpointing: found true, expected false: only networks"):
        prepare_network(nn.Linear(2, 2), config, CPU)
    own = Adapted(sharing_copy(own_teacher().denoiser), lora("1"), seed=0)
    with pytest.raises(UserError, match="expected false: Timeless has none"):
        prepare_network(own, config, CPU)


def test_merged_is_the_same_function_with_the_names_of_whole_weights(teacher: Teacher) -> None:
    trained = adapted(teacher, moved=1)
    copy = Adapted(teacher.trainable_copy(), lora(*LAYERS), seed=5)
    load_strictly(copy, trained.state_dict(), "here")
    whole = copy.merged()
    assert whole.state_dict().keys() == teacher.denoiser.state_dict().keys()
    torch.testing.assert_close(whole(x_t(), T), trained(x_t(), T), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(whole(x_t(), T), teacher(x_t(), T), atol=1e-2)


def test_the_weights_of_a_half_precision_teacher_stay_so_and_the_adapter_is_float32(teacher: Teacher) -> None:
    teacher.denoiser.bfloat16()
    network = adapted(teacher)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert {p.dtype for p in teacher.denoiser.parameters()} == {torch.bfloat16}
    assert torch.equal(network(x_t(), T), teacher(x_t(), T))


def test_adapters_of_a_half_precision_network_learn_in_autocasts_type(teacher: Teacher) -> None:
    """Outside autocast their float32 would be that of all activations; the teacher, which has none, is outside."""
    teacher.denoiser.bfloat16()
    network, seen = adapted(teacher), []
    layer = next(m for name, m in network.denoiser.named_modules() if name.endswith("lora_A.default"))
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        network(x_t(), T)
    assert seen == [torch.bfloat16]
    assert network.denoiser.adapted and not teacher.denoiser.adapted


def test_the_seed_alone_says_how_an_adapter_starts(teacher: Teacher) -> None:
    before = torch.get_rng_state()
    one, same = adapted(teacher), adapted(teacher)
    other = Adapted(sharing_copy(teacher.denoiser), lora("to_q"), seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, same.state_dict()[name]) for name, value in one.state_dict().items())
    name = next(name for name in other.state_dict() if name.endswith("lora_A.weight"))
    assert not torch.equal(one.state_dict()[name], other.state_dict()[name])


@pytest.mark.parametrize("layers", [("to_z",), ("norm1",)], ids=["unknown", "no matrix"])
def test_layers_that_take_no_adapter_are_refused_by_name(teacher: Teacher, layers: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=rf"^lora.target_modules: found \['{layers[0]}'\]: [^\n]+$"):
        Adapted(sharing_copy(teacher.denoiser), lora(*layers), seed=0)


def test_memory_layout_is_that_of_the_shared_weights(teacher: Teacher) -> None:
    adapted(teacher, channels_last=True)
    weight = teacher.denoiser.network.conv_in.weight  # type: ignore[union-attr]
    assert weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[operator]
