"""Strict loading: what does not fit is listed in one line with the nearest names, and nothing is changed."""

import pytest
import torch
from torch import Tensor, nn

from unistep.errors import UserError
from unistep.networks import SongUNet, load_strictly


def network() -> nn.Module:
    return SongUNet(8, 2, 8, (1,), 1, ())


def refusal(state: dict[str, Tensor]) -> str:
    module = network()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(UserError) as error:
        load_strictly(module, state, "weights.safetensors")
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_same_names_and_shapes_load_from_any_floating_type() -> None:
    source, target = network(), network()
    load_strictly(target, {key: value.half() for key, value in source.state_dict().items()}, "there")
    for key, value in target.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, source.state_dict()[key].half().float())


def test_a_renamed_tensor_is_missing_and_surplus_with_its_nearest_name() -> None:
    state = network().state_dict()
    state["enc.8x8_convolution.weight"] = state.pop("enc.8x8_conv.weight")
    message = refusal(state)
    assert message.startswith("weights.safetensors: ")
    assert "missing: enc.8x8_conv.weight (8, 2, 3, 3) (nearest: enc.8x8_convolution.weight)" in message
    assert "surplus: enc.8x8_convolution.weight (8, 2, 3, 3) (nearest: enc.8x8_conv.weight)" in message
    assert "misshapen" not in message


def test_a_misshapen_tensor_says_both_shapes() -> None:
    state = network().state_dict()
    state["map_layer0.bias"] = torch.zeros(5)
    assert "misshapen: map_layer0.bias found (5,), expected (32,)" in refusal(state)


def test_long_lists_are_cut_and_counted() -> None:
    names = network().state_dict()
    message = refusal({f"module.{key}": value for key, value in names.items()})
    assert message.count(f" and {len(names) - 3} more") == 2
    assert len(message) < 1000


def test_a_surplus_tensor_alone_is_refused() -> None:
    message = refusal({**network().state_dict(), "map_layer2.bias": torch.zeros(1)})
    assert "surplus: map_layer2.bias (1,) (nearest: map_layer" in message
    assert "missing" not in message
