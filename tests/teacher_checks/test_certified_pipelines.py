"""A pipeline whose scheduler says another prediction type than its network was trained with is caught.

The pipeline's own sample does not tell: it believes its scheduler as we do. Only the certificate asks the network.
"""

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor

from unistep.diffusion.process import DiscreteVPProcess
from unistep.errors import UserError
from unistep.teacher_checks import certify
from unistep.teacher_checks.structure import shapes_and_rows
from unistep.teachers.diffusers import Options, teacher_from_pipeline
from unistep.teachers.load import load_teacher

LATENT = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


class UNet2DModel(diffusers.UNet2DModel):
    """The embedded Fashion-MNIST denoiser as what a DDPM pipeline calls its U-Net: it predicts eps on a VP schedule.

    The parameters of the class that lends its name are not asked: a small one trained for the test's seconds is too
    far from a posterior mean to be certified even when it is read rightly.
    """

    trained: Any
    batched: Callable[[Tensor], Tensor] | None = None  # something that depends on the batch

    def forward(self, sample: Tensor, timestep: Any, class_labels: Any = None, return_dict: bool = True) -> Any:
        process, x = DiscreteVPProcess.scaled_linear(), sample.float()
        t = torch.as_tensor(timestep, dtype=x.dtype).expand(len(x))
        alpha, sigma = (scale(t)[:, None, None, None] for scale in (process.alpha, process.sigma))
        no_class = torch.full((len(x),), -1)
        mu = self.trained(x / alpha, (sigma / alpha).flatten(), no_class)
        eps = (x - alpha * mu) / sigma
        eps = (self.batched(eps) if self.batched else eps).to(sample.dtype)
        return UNet2DOutput(eps) if return_dict else (eps,)


def built(dtype: torch.dtype = torch.float32) -> UNet2DModel:
    small = UNet2DModel(
        sample_size=28, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(4,), norm_num_groups=2,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), add_attention=False,
    ).to(dtype)  # fmt: skip
    small.trained = load_teacher("embedded:fashion-mnist").denoiser  # float32, whatever the network's own type
    return small


@pytest.fixture(scope="module")
def network() -> UNet2DModel:
    return built()


def pipeline(network: UNet2DModel, prediction_type: str) -> Any:
    scheduler = diffusers.DDPMScheduler(**LATENT, prediction_type=prediction_type, clip_sample=False)
    return diffusers.DDPMPipeline(network, scheduler)


def test_the_right_prediction_type_is_certified(network: UNet2DModel) -> None:
    certify(teacher_from_pipeline(pipeline(network, "epsilon"), Options(compare=0))).require()


@pytest.mark.parametrize("said", ["v_prediction", "sample"])
def test_a_wrong_prediction_type_in_the_schedulers_configuration_is_caught(network: UNet2DModel, said: str) -> None:
    teacher = teacher_from_pipeline(pipeline(network, said))  # compared with the pipeline's own sample, and alike
    with pytest.raises(
        UserError, match="is the prediction type, the noise schedule or the preconditioning another one?"
    ):
        certify(teacher).require()


def rounded_otherwise(eps: Tensor) -> Tensor:
    """Kernels for a batch of one sum in another order: the last bit is another one in half precision."""
    signs = torch.randn(eps.shape, generator=torch.Generator().manual_seed(0)).sign()
    return eps * (1 + 2.0**-8 * signs) if len(eps) == 1 else eps


@pytest.mark.parametrize(
    ("batched", "passed"), [(rounded_otherwise, True), (lambda eps: 0.8 * eps + 0.2 * eps.mean(0), False)]
)
def test_rows_of_a_half_precision_network_may_differ_by_their_rounding(batched: Any, passed: bool) -> None:
    """At u = 0.98 x_0 is a difference divided by alpha = 0.075, which makes a tenth of one last bit."""
    half = built(torch.bfloat16)
    half.batched = batched
    teacher = teacher_from_pipeline(pipeline(half, "epsilon"), Options(compare=0))
    assert shapes_and_rows(teacher, torch.device("cpu")).passed == passed
