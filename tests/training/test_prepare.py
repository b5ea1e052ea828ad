"""A network as the loop receives it: the memory layout is the one that the settings ask for."""

import pytest
import torch

from unistep.networks import build_denoiser
from unistep.training import TrainingConfig, prepare_network

CONFIG = {
    "network": {"type": "unet", "img_resolution": 8, "img_channels": 3, "model_channels": 8, "channel_mult": [1],
                "num_blocks": 1, "attn_resolutions": []},
    "process": {"type": "edm"},
}  # fmt: skip


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("before", [torch.contiguous_format, torch.channels_last])
def test_the_layout_is_as_set_whatever_it_was(channels_last: bool, before: torch.memory_format) -> None:
    settings = TrainingConfig(steps=1, batch=1, strategy="none", channels_last=channels_last)
    network = build_denoiser(CONFIG).to(memory_format=before)  # type: ignore[call-overload]
    prepared = prepare_network(network, settings, torch.device("cpu"))
    kernels = [p for p in prepared.parameters() if p.ndim == 4 and p.shape[2] > 1 and p.shape[1] > 1]
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert kernels and all(p.is_contiguous(memory_format=layout) for p in kernels)
