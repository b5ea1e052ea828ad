"""Regression and denoising losses: per-sample, zero at equality, known values."""

import pytest
import torch
from torch import Tensor

from unistep.errors import UserError
from unistep.losses.denoising import denoising_loss
from unistep.losses.regression import build_regression, l2, multiscale, perceptual, pseudo_huber


def two_scales(x: Tensor) -> list[Tensor]:
    return [x, torch.nn.functional.avg_pool2d(x, 2)]


@pytest.mark.parametrize("name", ["l2", "pseudo_huber", "multiscale", "perceptual"])
def test_zero_at_equality_positive_elsewhere_and_per_sample(name: str) -> None:
    loss = build_regression(name, two_scales)  # type: ignore[arg-type]
    x, y = torch.randn(2, 3, 2, 8, 8).unbind(0)
    assert loss(x, x).shape == (3,)
    torch.testing.assert_close(loss(x, x), torch.zeros(3), atol=1e-6, rtol=0)
    assert (loss(x, y) > 0).all()
    torch.testing.assert_close(loss(x, y)[1:2], loss(x[1:2], y[1:2]))


def test_l2_and_pseudo_huber_values() -> None:
    x, y = torch.zeros(1, 4), torch.full((1, 4), 2.0)
    assert l2(x, y).item() == pytest.approx(4.0)
    assert pseudo_huber(x, y, c=1.0).item() == pytest.approx(5**0.5 - 1)
    one = torch.tensor([[4.0, 0.0, 0.0, 0.0]])  # the mean square is that of 2 everywhere
    assert pseudo_huber(x, one, c=1.0).item() == pytest.approx(5**0.5 - 1)


def test_multiscale_weighs_large_structure() -> None:
    flat, noise = torch.full((1, 1, 8, 8), 0.5), torch.randn(1, 1, 8, 8)
    noise = noise / noise.square().mean().sqrt() * 0.5
    zero = torch.zeros(1, 1, 8, 8)
    assert l2(flat, zero).item() == pytest.approx(l2(noise, zero).item(), rel=1e-5)
    assert multiscale(flat, zero).item() > multiscale(noise, zero).item()


@pytest.mark.parametrize("dims", [(2,), (3, 16)])
def test_multiscale_refuses_what_is_no_image(dims: tuple[int, ...]) -> None:
    x = torch.zeros(4, *dims)
    with pytest.raises(UserError, match=r"^method\.regression: found 'multiscale' for samples of shape"):
        multiscale(x, x)
    assert l2(x, x).shape == pseudo_huber(x, x).shape == (4,)


def test_perceptual_gradient_reaches_the_sample() -> None:
    x, y = torch.randn(2, 2, 3, 8, 8).unbind(0)
    x = x.clone().requires_grad_(True)
    perceptual(two_scales, x, y).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().sum() > 0


def test_perceptual_without_network_says_what_to_set() -> None:
    with pytest.raises(UserError, match="perceptual_network"):
        build_regression("perceptual", None)


def test_denoising_loss_is_the_weighted_mean_square() -> None:
    mu, x = torch.ones(2, 3, 2), torch.zeros(2, 3, 2)
    torch.testing.assert_close(denoising_loss(mu, x, torch.tensor([1.0, 4.0])), torch.tensor([1.0, 4.0]))
