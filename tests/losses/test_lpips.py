"""What the LPIPS network of another library is given, with a stand-in for that library."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from unistep.errors import UserError
from unistep.losses.lpips import LPIPS
from unistep.losses.regression import build_regression


class Metric(nn.Module):
    """Mean absolute difference per image; keeps what it is given."""

    def __init__(self, reduction: str = "mean"):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.reduction, self.given = reduction, list[Tensor]()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        self.given += [x, y]
        return self.weight * (x - y).abs().flatten(1).mean(1, keepdim=True)


def test_lpips_is_computed_in_float32_under_autocast_too() -> None:
    torch.manual_seed(0)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return (self.conv(x) - self.conv(y)).square().flatten(1).mean(1)

    distance, x = LPIPS(Layer()), torch.rand(2, 3, 8, 8)
    y = (x + 1e-3 * torch.randn_like(x)).requires_grad_()
    expected = distance(x, y)
    with torch.autocast("cpu", torch.bfloat16):
        found = distance(x, y)
    assert found.dtype == torch.float32 and torch.equal(found, expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_lpips_is_given_three_channels_of_224_in_0_to_1(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "piq", SimpleNamespace(LPIPS=Metric))
    distance = build_regression("lpips")
    assert isinstance(distance, nn.Module)
    (metric,) = [module for module in distance.modules() if isinstance(module, Metric)]
    assert metric.reduction == "none"
    assert not metric.training and not any(p.requires_grad for p in distance.parameters())
    levels = torch.tensor([-1.0, 0.0, 1.0])[:, None, None, None]
    x = levels.expand(3, channels, 28, 28).clone().requires_grad_()
    found = distance(x, torch.full((3, channels, 28, 28), -1.0))
    torch.testing.assert_close(found, torch.tensor([0.0, 0.5, 1.0]))
    assert [tuple(image.shape) for image in metric.given] == [(3, 3, 224, 224)] * 2
    for image, level in zip(metric.given[0], (0.0, 0.5, 1.0), strict=True):
        torch.testing.assert_close(image, torch.full((3, 224, 224), level))
    (gradient,) = torch.autograd.grad(found[1], x)
    assert float(gradient[1].sum()) == pytest.approx(0.5, rel=1e-5)


def test_what_is_too_bright_is_seen_at_the_edge_and_can_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "piq", SimpleNamespace(LPIPS=Metric))
    x = torch.full((1, 3, 8, 8), 1.5, requires_grad=True)
    found = build_regression("lpips")(x, torch.zeros(1, 3, 8, 8))
    assert found.item() == pytest.approx(0.5)  # as at 1
    (gradient,) = torch.autograd.grad(found, x)
    assert float(gradient.sum()) == pytest.approx(0.5, rel=1e-5)


def test_colours_keep_their_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "piq", SimpleNamespace(LPIPS=Metric))
    distance = build_regression("lpips")
    x = torch.tensor([-1.0, 0.0, 1.0])[None, :, None, None].expand(1, 3, 8, 8)
    distance(x, x)
    (metric,) = [module for module in distance.modules() if isinstance(module, Metric)]  # type: ignore[union-attr]
    torch.testing.assert_close(metric.given[0][0].mean((1, 2)), torch.tensor([0.0, 0.5, 1.0]))


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "piq", None)
    with pytest.raises(UserError, match=r"nor the library piq; name the files, or pip install 'unistep\[lpips\]'"):
        build_regression("lpips")


def test_images_that_are_large_enough_are_seen_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "piq", SimpleNamespace(LPIPS=Metric))
    distance = build_regression("lpips")
    x = torch.rand(1, 3, 256, 240) * 2 - 1
    distance(x, x)
    (metric,) = [module for module in distance.modules() if isinstance(module, Metric)]  # type: ignore[union-attr]
    torch.testing.assert_close(metric.given[0], (x + 1) / 2)
