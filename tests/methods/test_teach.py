"""Teaching a teacher: EDM's loss written out by hand, labels that are dropped, and where a network starts from."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from unistep.diffusion.process import EDMProcess
from unistep.errors import UserError
from unistep.methods import Batch, LabelDropout, Teach, TeachConfig
from unistep.networks import MLP, EDMDenoiser, build_denoiser
from unistep.recipes.load import recipe_of
from unistep.recipes.schema import TeachRecipe
from unistep.run.teach import initial_denoiser
from unistep.teachers.checkpoint import save_denoiser
from unistep.teachers.conditioners import LabelConditioner
from unistep.training import Shard, Streams, TensorImages

N, EPS = torch.tensor([-1.5, 0.0, 0.4, 2.0]), torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
X, LABELS = torch.randn(4, 2, generator=torch.Generator().manual_seed(1)), torch.tensor([2, 0, 1, 1])


class Given:
    """Randomness that was written down: ln sigma's normals N, the noise EPS, and uniforms for the labels."""

    def __init__(self, *uniforms: float):
        self.uniforms = torch.tensor(uniforms)

    def normal(self, rows: int, *dims: int) -> Tensor:
        return EPS if dims else N

    def integers(self, rows: int, low: int, high: int) -> Tensor:
        raise AssertionError("teaching draws no whole numbers")

    def uniform(self, rows: int) -> Tensor:
        return self.uniforms


class Seen(nn.Module):
    """Answers with half the noisy sample and remembers what it was asked."""

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        self.x_t, self.t, self.cond = x_t, t, cond
        return x_t / 2


def method(**settings: float) -> tuple[Teach, Seen]:
    denoiser, design = Seen(), EDMDenoiser(MLP(2, 8, 1), EDMProcess(), sigma_data=0.7)
    return Teach(denoiser, design, TeachConfig(**settings)), denoiser


def loss(method: Teach, labels: Tensor | None, *uniforms: float) -> Tensor:
    output = method.phases(0)[0].loss(Batch(size=4, real=X, real_cond=labels), Given(*uniforms))
    torch.testing.assert_close(output.total(), output.terms["denoise"].mean())
    return output.terms["denoise"]


@pytest.mark.parametrize(("P_mean", "P_std"), [(-1.2, 1.2), (0.5, 0.8)])
def test_the_loss_is_edm_s(P_mean: float, P_std: float) -> None:
    """lambda |D(x + sigma eps) - x|^2 with ln sigma = P_mean + P_std n and lambda = 1/sigma^2 + 1/sigma_data^2."""
    teaching, denoiser = method() if P_mean == -1.2 else method(P_mean=P_mean, P_std=P_std)
    terms = loss(teaching, None)
    sigma = (P_mean + P_std * N).exp()
    x_t = X + sigma[:, None] * EPS
    torch.testing.assert_close(denoiser.t, sigma)
    torch.testing.assert_close(denoiser.x_t, x_t)
    torch.testing.assert_close(terms, (1 / sigma**2 + 1 / 0.7**2) * (x_t / 2 - X).square().mean(1))
    assert denoiser.cond is None


@pytest.mark.parametrize(
    ("dropout", "expected"), [(0.1, [-1, 0, 1, 1]), (0.5, [-1, -1, 1, 1]), (0.0, [2, 0, 1, 1]), (1.0, [-1] * 4)]
)
def test_a_share_of_the_labels_is_dropped(dropout: float, expected: list[int]) -> None:
    left = LabelDropout(dropout)(LABELS, Given(0.05, 0.3, 0.5, 0.99))
    assert isinstance(left, Tensor) and left.tolist() == expected
    assert LABELS.tolist() == [2, 0, 1, 1]  # the batch's own are left alone


class Captions(LabelConditioner):
    """Label i as a row of i's, -1 as the empty prompt's."""

    def from_labels(self, labels: Tensor) -> Tensor:
        return {"text": labels[:, None].expand(-1, 3)}  # type: ignore[return-value]


def test_what_the_network_is_given_is_made_of_the_labels_that_are_left() -> None:
    given = LabelDropout(0.5, Captions(3))(LABELS, Given(0.05, 0.3, 0.5, 0.99))
    assert isinstance(given, dict) and given["text"].tolist() == [[-1] * 3, [-1] * 3, [1] * 3, [1] * 3]
    with pytest.raises(UserError, match=r"label: found 3, expected 0..2"):
        LabelDropout(0.0, LabelConditioner(3))(torch.tensor([0, 3, 0, 0]), Given(0.5, 0.5, 0.5, 0.5))
    assert LabelDropout(0.5)(None, Given()) is None
    teaching, denoiser = method()
    loss(teaching, LABELS)
    assert denoiser.cond is LABELS  # the loss takes them as they come


def test_the_stream_drops_and_conditions_before_it_uploads() -> None:
    images = TensorImages(torch.zeros(40, 2), torch.arange(40) % 3)
    stream = Streams(seed=0, batch=32, device="meta", images=images, real_condition=LabelDropout(0.5, Captions(3)))
    cond = stream.batch(0, method()[0].phases(0)[0], Shard()).real_cond
    assert isinstance(cond, dict) and cond["text"].device.type == "meta"
    kept = Streams(seed=0, batch=32, images=images, real_condition=LabelDropout(0.5))
    whole = kept.batch(0, method()[0].phases(0)[0], Shard()).real_cond
    halves = [kept.batch(0, method()[0].phases(0)[0], Shard(k, 2)).real_cond for k in range(2)]
    assert isinstance(whole, Tensor) and 4 < int((whole < 0).sum()) < 28
    assert torch.equal(torch.cat(halves), whole)  # type: ignore[arg-type]


def test_a_tenth_is_dropped_unless_said_otherwise() -> None:
    assert TeachConfig().label_dropout == 0.1


def test_images_are_needed() -> None:
    with pytest.raises(ValueError, match="found a batch without real images"):
        method()[0].loss(Batch(size=4), Given())


def test_a_recipe_s_init_is_where_the_network_starts(tmp_path: Path) -> None:
    network = "{type: unet, img_resolution: 8, img_channels: 1, model_channels: 8, num_blocks: 1, label_dim: 10}"
    recipe = recipe_of(TeachRecipe, "digits-teacher", [f"network={network}", f"init={tmp_path / 'init'}"])
    config = recipe.model_dump(include={"network", "process", "sigma_data"})
    start = build_denoiser(config)
    save_denoiser(tmp_path / "init", start, config | {"shape": [1, 8, 8], "codec": {"type": "pixels"}})
    for name, value in initial_denoiser(recipe, config).state_dict().items():
        assert torch.equal(value, start.state_dict()[name])
    fresh = initial_denoiser(recipe.model_copy(update={"init": None}), config)
    assert any(not torch.equal(value, start.state_dict()[name]) for name, value in fresh.state_dict().items())
