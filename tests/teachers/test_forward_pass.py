"""A forward pass neither waits for the device nor breaks the graph of `torch.compile`."""

import diffusers
import pytest
import torch
from torch import Tensor, nn

from unistep import Teacher
from unistep.diffusion.guidance import GuidedDenoiser
from unistep.diffusion.process import DiscreteVPProcess, FlowProcess
from unistep.errors import UserError
from unistep.networks import build_denoiser
from unistep.teachers.diffusers import Options, teacher_from_pipeline
from unistep.teachers.module import ModuleDenoiser
from unistep.types import Cond, constant


class Small(nn.Module):
    """A network of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.layer(x) + t[:, None, None, None]


def own() -> nn.Module:
    return ModuleDenoiser(Small(), DiscreteVPProcess.linear(), "eps", conditional=True)


def edm() -> nn.Module:
    network = {
        "type": "unet", "img_resolution": 8, "img_channels": 3, "model_channels": 8, "num_blocks": 1,
        "channel_mult": [1], "attn_resolutions": [], "label_dim": 3,
    }  # fmt: skip
    return build_denoiser({"network": network, "process": {"type": "edm"}, "sigma_data": 0.5})


def pipeline() -> Teacher:
    network = diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=2, num_class_embeds=4,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    pipe = diffusers.DDPMPipeline(network, diffusers.DDPMScheduler())
    return teacher_from_pipeline(pipe, Options(null_class=True))


def foreign() -> nn.Module:
    return pipeline().denoiser


INPUTS = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 400.0]), torch.tensor([0, 2])


@pytest.mark.parametrize("make", [edm, own, pytest.param(foreign, marks=pytest.mark.slow)])
def test_a_denoiser_is_one_graph(make) -> None:
    torch._dynamo.reset()
    found = torch._dynamo.explain(make())(*INPUTS)
    assert (found.graph_break_count, found.graph_count) == (0, 1), found.break_reasons
    torch._dynamo.reset()


@pytest.mark.parametrize("make", [edm, own, foreign])
def test_guided_evaluations_wait_for_nothing_and_upload_the_null_condition_once(make) -> None:
    asked: list[int] = []

    def null(rows: int) -> Cond:
        asked.append(rows)
        return torch.full((rows,), -1)

    denoiser = make()
    guided = GuidedDenoiser(denoiser, null, 3.0)
    with torch.no_grad():
        first = guided(*INPUTS)
        assert torch.equal(guided(*INPUTS), first)
        free, held = denoiser(*INPUTS[:2], torch.tensor([-1, -1])), denoiser(*INPUTS)
        assert asked == [1]
        on_meta = guided.to("meta")(*(x.to("meta") for x in INPUTS))  # where whatever needs a number is an error
        assert on_meta.shape == first.shape
    assert asked == [1, 1]
    torch.testing.assert_close(first, free + 3 * (held - free))


def test_constants_are_tensors_once() -> None:
    denoiser = pipeline().denoiser
    denoiser.constants = {"time_ids": [8.0, 8.0]}
    assert denoiser.named(INPUTS[2], INPUTS[0])["time_ids"].tolist() == [[8.0, 8.0]] * 2  # type: ignore[operator]
    assert constant([8.0, 8.0], INPUTS[0].device) is constant([8.0, 8.0], INPUTS[0].device)


@pytest.mark.parametrize("process", [FlowProcess(), DiscreteVPProcess.zero_terminal_snr(DiscreteVPProcess.linear())])
def test_a_singular_prediction_is_refused_when_the_denoiser_is_made(process) -> None:
    with pytest.raises(UserError, match="prediction eps: found t = .*expected another time: alpha = 0"):
        ModuleDenoiser(Small(), process, "eps", conditional=True)
