"""The discriminator's head reads what enters the decoder, and changes nothing that the denoiser answers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from unistep.diffusion.process import EDMProcess
from unistep.errors import UserError
from unistep.networks import build_denoiser
from unistep.networks.discriminator import DenoiserWithDiscriminator, bottleneck, head
from unistep.teachers.module import ModuleDenoiser

EDM = {"type": "edm"}
SMALL = {"img_resolution": 16, "img_channels": 1, "model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1,
         "label_dim": 3}  # fmt: skip
NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"type": "mlp", "dim": 2, "width": 16, "label_dim": 3},
    "unet": {"type": "unet", **SMALL, "attn_resolutions": []},
    "song_unet": {"type": "song_unet", **SMALL, "attn_resolutions": []},
    "dhariwal_unet": {"type": "dhariwal_unet", **SMALL, "model_channels": 64, "attn_resolutions": []},
    "edm2_unet": {"type": "edm2_unet", **SMALL, "model_channels": 64, "attn_resolutions": []},
}


def built(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    torch.manual_seed(0)
    denoiser = build_denoiser({"network": NETWORKS[name], "process": EDM})
    with torch.no_grad():
        for p in denoiser.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return denoiser.eval(), (2,) if name == "mlp" else (1, 16, 16)


@pytest.mark.parametrize("name", NETWORKS)
def test_mu_is_the_denoisers_and_the_logit_hears_noise_level_and_class(name: str) -> None:
    denoiser, shape = built(name)
    denoiser.requires_grad_(False)  # else EDM2's weights are normalized at each use
    x, t, cond = torch.randn(4, *shape), torch.full((4,), 0.7), torch.tensor([0, 1, 2, 0])
    before = denoiser(x, t, cond)
    judged = DenoiserWithDiscriminator(denoiser, x[:1], t[:1], cond[:1])
    assert torch.equal(judged(x, t, cond), before)
    mu, logits = judged(x, t, cond, output="both")
    assert torch.equal(mu, before)
    assert torch.equal(logits, torch.zeros(4))  # no opinion at the start
    with torch.no_grad():
        judged.head[-1].weight.normal_()  # type: ignore[index,union-attr]
    opinion = judged(x, t, cond, output="both")[1]
    for changed in ((x + 1, t, cond), (x, t + 1, cond), (x, t, (cond + 1) % 3)):
        assert not torch.allclose(judged(*changed, output="both")[1], opinion, rtol=1e-3, atol=1e-5)
    assert judged.features is None


def judged_with_opinion(name: str) -> tuple[DenoiserWithDiscriminator, tuple[Tensor, Tensor, Tensor]]:
    """A network with a head that is not zero, and four rows."""
    denoiser, shape = built(name)
    x, t, cond = torch.randn(4, *shape), torch.full((4,), 0.7), torch.tensor([0, 1, 2, 0])
    judged = DenoiserWithDiscriminator(denoiser, x[:1], t[:1], cond[:1])
    with torch.no_grad():
        judged.head[-1].weight.normal_()  # type: ignore[index,union-attr]
    return judged, (x, t, cond)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_logit_alone_runs_no_decoder_and_is_the_same(name: str) -> None:
    judged, (x, t, cond) = judged_with_opinion(name)
    entered: list[nn.Module] = []
    bottleneck(judged.denoiser).register_forward_hook(lambda module, *_: entered.append(module))
    grads = []
    for output in ("both", "logits"):
        moving = x.clone().requires_grad_()
        found = judged(moving, t, cond, output=output)
        logits = found[1] if isinstance(found, tuple) else found
        grads.append([logits, *torch.autograd.grad(logits.sum(), [moving, *judged.head.parameters()])])
    assert len(entered) == 1  # the whole pass entered it, the logit's did not
    for whole, stopped in zip(*grads, strict=True):
        torch.testing.assert_close(stopped, whole, rtol=1e-4, atol=1e-4)  # EDM2 normalizes its weights again
    assert judged(x, t, cond).shape == x.shape  # type: ignore[union-attr]  # passes after it are whole again
    assert judged.features is None


@pytest.mark.parametrize("name", NETWORKS)
def test_the_encoders_share_is_that_of_the_operations(name: str) -> None:
    judged, inputs = judged_with_opinion(name)
    features = judged.measure(*inputs)[0]

    def operations(run: Callable[[], object]) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            run()
        return counter.get_total_flops()

    logits, whole = operations(lambda: judged(*inputs, output="logits")), operations(lambda: judged(*inputs))
    encoder = logits - operations(lambda: judged.head(features))
    assert 0 < encoder < whole
    assert judged.encoder_share == pytest.approx(encoder / whole)


def test_a_compiled_network_stops_as_well() -> None:
    judged, (x, t, cond) = judged_with_opinion("mlp")
    expected = judged(x, t, cond), judged(x, t, cond, output="logits")
    judged.compile(backend="eager")
    torch.testing.assert_close((judged(x, t, cond), judged(x, t, cond, output="logits")), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_without_a_decoder_exactly_what_the_logit_depends_on_learns(name: str) -> None:
    denoiser, shape = built(name)
    cond = torch.tensor([1])
    judged = DenoiserWithDiscriminator(denoiser, torch.zeros(1, *shape), torch.ones(1), cond, train_decoder=False)
    with torch.no_grad():
        judged.head[-1].weight.normal_()  # type: ignore[index,union-attr]
    learning = {n: p for n, p in judged.named_parameters() if p.requires_grad}
    judged(torch.randn(2, *shape), torch.ones(2), cond.expand(2), output="both")[1].sum().backward()
    assert all(p.grad is not None for p in learning.values())
    assert 0 < len(learning) < len(list(judged.parameters()))


@pytest.mark.parametrize("size", [(32, 2, 2), (32, 4, 4), (32, 7, 7), (32, 8, 8), (32, 16, 8), (32,)])
def test_a_head_for_every_size(size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layers = head(torch.zeros(1, *size))
    assert layers(torch.randn(3, *size)).flatten().shape == (3,)


class Foreign(nn.Module):
    """A network that names no bottleneck."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.layer(x)


def test_a_network_without_a_bottleneck_is_refused_by_name() -> None:
    foreign = ModuleDenoiser(Foreign(), EDMProcess(), "x0", conditional=False)
    with pytest.raises(UserError, match="found a network Foreign without a bottleneck.*give the network a property"):
        DenoiserWithDiscriminator(foreign, torch.zeros(1, 2), torch.ones(1))
