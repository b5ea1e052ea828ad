"""LPIPS with VGG16 of our own: the published size, its arithmetic in closed form, and piq's where that is there."""

import pytest
import torch
from torch import Tensor, nn

from unistep.losses.lpips import MEAN, SEEN, STD, VGGMetric
from unistep.losses.regression import build_regression, perceptual


def metric(weight: float | None = None) -> VGGMetric:
    """Random weights of the right architecture; all learnt weights equal if one is given."""
    torch.manual_seed(0)
    made = VGGMetric().eval().requires_grad_(False)
    for layer in made.children():
        if layer is not made.features:
            made_weight = layer.model[1].weight
            made_weight.copy_(torch.rand_like(made_weight) if weight is None else torch.full_like(made_weight, weight))
    return made


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    x, y = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(1)).unbind(0)
    return x, y


def test_it_has_the_published_size_and_names() -> None:
    state = VGGMetric().state_dict()
    trunk = {name: tuple(value.shape) for name, value in state.items() if name.startswith("features.")}
    assert sum(state[name].numel() for name in trunk) == 14_714_688  # torchvision's VGG16 without its classifier
    convolutions = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    assert sorted(trunk) == sorted(f"features.{i}.{kind}" for i in convolutions for kind in ("weight", "bias"))
    assert trunk["features.10.weight"] == (256, 128, 3, 3)
    lins = {name: tuple(state[name].shape) for name in state if name not in trunk}
    widths = (64, 128, 256, 512, 512)
    assert lins == {f"lin{i}.model.1.weight": (1, width, 1, 1) for i, width in enumerate(widths)}


def test_with_all_weights_one_it_is_the_distance_of_normalised_maps(images: tuple[Tensor, Tensor]) -> None:
    ones = metric(1.0)
    expected = perceptual(ones.maps, *images, pixel_weight=0.0)
    torch.testing.assert_close(ones(*images), expected)
    torch.testing.assert_close(metric(0.25)(*images), expected / 4)
    torch.testing.assert_close(ones(images[0], images[0]), torch.zeros(2))
    assert [m.shape[1] for m in ones.maps(images[0])] == [64, 128, 256, 512, 512]


def test_each_map_is_a_relu_of_unit_length_and_images_are_shifted_as_lpips_does(images: tuple[Tensor, Tensor]) -> None:
    network = metric()
    assert all(isinstance(network.features[index], nn.ReLU) for index in SEEN)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])  # of [-1, 1] there
    x = ((2 * images[0] - 1) - shift[:, None, None]) / scale[:, None, None]
    first = network.features[:4](x)
    torch.testing.assert_close(network.maps(images[0])[0], first / first.norm(dim=1, keepdim=True))
    assert len(MEAN) == len(STD) == 3


def test_gradients_are_finite_where_every_feature_is_zero() -> None:
    network = metric()
    for layer in network.features:
        if isinstance(layer, nn.Conv2d):
            layer.bias.fill_(-100.0)  # type: ignore[union-attr]
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(x, torch.rand(1, 3, 32, 32)).sum(), x)
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_the_regression_asks_it_at_224(images: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    network, given = metric(), list[Tensor]()
    monkeypatch.setattr(network, "forward", lambda x, y: given.append(x) or x.flatten(1).mean(1))
    distance = build_regression("lpips", lpips=network)
    torch.testing.assert_close(distance(torch.ones(2, 1, 8, 8), torch.zeros(2, 1, 8, 8)), torch.ones(2))
    assert given[0].shape == (2, 3, 224, 224)


def test_piq_gives_the_same(images: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    piq = pytest.importorskip("piq")
    network = metric()
    trunk = type("VGG", (), {"features": network.features})()
    lins = [getattr(network, f"lin{i}").model[1].weight for i in range(5)]
    monkeypatch.setattr(piq.perceptual, "vgg16", lambda **_: trunk)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: lins)
    torch.testing.assert_close(network(*images), piq.LPIPS(reduction="none")(*images), rtol=1e-4, atol=1e-6)
