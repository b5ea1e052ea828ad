"""StepSchedule of AdamW on a small network of EDM2, for the tests in one process and on two ranks."""

import torch
from torch import Tensor

from unistep.diffusion.process import EDMProcess
from unistep.networks import build_denoiser
from unistep.teachers.codecs import PixelCodec
from unistep.teachers.teacher import Teacher
from unistep.training import TrainingConfig, prepare_network
from unistep.training.distributed import full_tensor, rank, set_gradient_sync, world_size
from unistep.training.optim import build_optimizer

NETWORK = {
    "type": "edm2_unet", "img_resolution": 8, "img_channels": 1, "model_channels": 16, "channel_mult": [1, 2],
    "num_blocks": 1, "attn_resolutions": [4], "channels_per_head": 16,
}  # fmt: skip


def edm2_teacher() -> Teacher:
    """With gains that are not zero, so that all layers matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = {"network": NETWORK, "process": {"type": "edm"}}
        denoiser = build_denoiser(config)
        with torch.no_grad():
            for p in denoiser.parameters():
                p.add_(0.5 if p.ndim == 0 else 0)
    return Teacher(
        denoiser=denoiser, process=EDMProcess(), weighting=denoiser.weighting, shape=(1, 8, 8), codec=PixelCodec(),
        source="test", sha256="0", config=config,
    )  # fmt: skip


def edm2_steps(strategy: str = "ddp", steps: int = 5) -> dict[str, Tensor]:
    """The whole weights after some large steps, two forward passes to a backward pass as methods make them."""
    config = TrainingConfig.model_validate(
        {"steps": steps, "batch": 4, "device": "cpu", "strategy": strategy, "optim": {"default": {"lr": 0.05}}}
    )
    network = prepare_network(edm2_teacher().trainable_copy(), config, torch.device("cpu"))
    optimizer = build_optimizer(network, config.optim["default"], "denoiser")
    set_gradient_sync(network, on=True)
    for step in range(steps):
        rng = torch.Generator().manual_seed(step)
        x, target = torch.randn(2, 4, 1, 8, 8, generator=rng)
        mine = slice(rank(), None, world_size())
        t = torch.ones(len(x[mine]))
        loss = (network(x[mine], t) - target[mine]).square().mean() + network(x[mine].flip(-1), t).square().mean()
        loss.backward()
        optimizer.adam.step()
        optimizer.adam.zero_grad()
    return {name.removeprefix("module."): full_tensor(p.detach()).clone() for name, p in network.named_parameters()}
