"""The GAN loss: its best discriminator is the log ratio of densities, and the two sides meet at no opinion."""

import math

import pytest
import torch

from unistep.losses.adversarial import discriminator_loss, generator_gan_loss


@pytest.mark.parametrize(("real", "fake"), [(0.5, 0.5), (0.9, 0.1), (0.02, 0.7)])
def test_the_best_discriminator_is_the_log_ratio(real: float, fake: float) -> None:
    D = torch.tensor([math.log(real / fake)], dtype=torch.float64, requires_grad=True)
    no = torch.zeros(1, dtype=torch.float64)
    none = discriminator_loss(no, no) / 2
    weighed = fake * (discriminator_loss(D, no) - none) + real * (discriminator_loss(no, D) - none)
    (slope,) = torch.autograd.grad(weighed.sum(), D)
    assert abs(float(slope)) < 1e-6


def test_no_opinion_costs_log_2_on_each_side() -> None:
    none = torch.zeros(3)
    torch.testing.assert_close(generator_gan_loss(none), torch.full((3,), math.log(2)))
    torch.testing.assert_close(discriminator_loss(none, none), torch.full((3,), 2 * math.log(2)))


def test_the_generator_wants_a_higher_logit_and_does_not_saturate() -> None:
    D = torch.tensor([-20.0, 0.0, 20.0], requires_grad=True)
    (slope,) = torch.autograd.grad(generator_gan_loss(D).sum(), D)
    torch.testing.assert_close(slope, torch.tensor([-1.0, -0.5, 0.0]), atol=1e-6, rtol=0)
