"""Magnitude-preserving operations: unit variance in, unit variance out, whatever the weights' length."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unistep.networks.magnitude_preserving import MPFourier, MPLayer, mp_cat, mp_silu, mp_sum, normalize

prop = settings(max_examples=20, deadline=None)


def rms(x: torch.Tensor) -> float:
    return x.square().mean().sqrt().item()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@prop
@given(st.floats(0.05, 0.95), st.integers(1, 40), st.integers(1, 40))
def test_sums_and_concatenations_keep_unit_variance(t: float, channels: int, others: int) -> None:
    a, b = noise(50_000 // channels, channels), noise(50_000 // others, others, seed=1)
    assert rms(mp_sum(noise(50_000), noise(50_000, seed=1), t)) == pytest.approx(1, abs=0.02)
    rows = min(len(a), len(b))
    joined = mp_cat(a[:rows], b[:rows], t)
    first, second = joined[:, :channels].square().sum(), joined[:, channels:].square().sum()
    assert (first / second).item() == pytest.approx(((1 - t) / t) ** 2, rel=0.15)  # shares do not depend on widths
    assert rms(joined) == pytest.approx(1, abs=0.06)


def test_silu_fourier_features_and_layers_keep_unit_variance() -> None:
    torch.manual_seed(0)
    assert rms(mp_silu(noise(100_000))) == pytest.approx(1, abs=0.01)
    assert rms(MPFourier(512)(noise(200))) == pytest.approx(1, abs=0.02)
    assert rms(MPLayer(64, 64)(noise(1000, 64))) == pytest.approx(1, abs=0.05)
    assert rms(MPLayer(64, 64, 3)(noise(4, 64, 32, 32))[..., 1:-1, 1:-1]) == pytest.approx(1, abs=0.05)


@prop
@given(st.floats(0.1, 100.0))
def test_the_length_of_a_weight_does_not_matter(scale: float) -> None:
    torch.manual_seed(0)
    layer, x = MPLayer(8, 4, 3).eval(), noise(2, 8, 5, 5)
    before = layer(x)
    layer.weight.data *= scale
    torch.testing.assert_close(layer(x), before, rtol=2e-3, atol=2e-3)


def test_stored_weights_are_normalised_where_they_learn_and_nowhere_else() -> None:
    torch.manual_seed(0)
    layer = MPLayer(8, 4).eval()
    layer.weight.data *= 3
    with torch.no_grad():
        layer(noise(2, 8))
    layer.requires_grad_(False)(noise(2, 8).requires_grad_())  # gradients pass through it
    assert rms(layer.weight) > 2
    layer.requires_grad_(True)(noise(2, 8))
    torch.testing.assert_close(layer.weight.square().mean(1), torch.ones(4), rtol=1e-3, atol=0)
    layer.weight.data *= 3
    layer.train()(noise(2, 8))
    torch.testing.assert_close(layer.weight.square().mean(1), torch.ones(4), rtol=1e-3, atol=0)


def test_normalising_changes_no_gradient_of_an_earlier_forward_pass() -> None:
    torch.manual_seed(0)
    layer, x = MPLayer(8, 4), noise(2, 8)
    (expected,) = torch.autograd.grad((layer(x) ** 3).sum() * 2, layer.weight)
    ((layer(x) ** 3).sum() + (layer(x) ** 3).sum()).backward()
    torch.testing.assert_close(layer.weight.grad, expected, rtol=1e-3, atol=1e-3)


def test_normalize_over_one_dimension_is_per_pixel() -> None:
    x = normalize(7 * noise(2, 16, 3, 3), dim=1)
    torch.testing.assert_close(x.square().mean(1), torch.ones(2, 3, 3), rtol=1e-3, atol=0)
