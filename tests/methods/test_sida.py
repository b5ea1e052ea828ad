"""SiDA: SiD at alpha 1 and a GAN on its fake score, and nothing else."""

import pytest
import torch
import torch.nn.functional as F
from fixed_random import FixedRandom
from small import ROWS, full_batch, made_of
from torch import Tensor

from unistep.diffusion.process.noising import noised
from unistep.methods.base import Batch
from unistep.methods.sid import SiDConfig
from unistep.methods.sida import SiDA, SiDAConfig


def make(**settings: object) -> SiDA:
    method = SiDAConfig(name="sida", fake_levels="uniform", **settings).build(made_of(classes=3))  # type: ignore[arg-type]
    with torch.no_grad():
        for p in method.fake_score.head.parameters():  # type: ignore[union-attr]
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(4)))
    return method


def levels_of(method: SiDA, clean: Tensor, rng: FixedRandom) -> tuple[Tensor, Tensor]:
    """t over the whole grid and x_t, drawn as the methods draw them."""
    t = method.process.time(rng.integers(len(clean), 0, 999) / 999)
    return t, noised(method.process, clean, t, rng.normal(*clean.shape))


def test_without_its_gan_it_is_sid_at_alpha_one() -> None:
    adversarial, batch = make(), full_batch(3)
    plain = SiDConfig(name="sid", alpha=1, fake_levels="uniform").build(made_of(classes=3))
    found, expected = (m.phases(0)[0].loss(batch, FixedRandom(3)) for m in (adversarial, plain))
    assert torch.equal(found.terms["sid"], expected.terms["sid"])
    samples = Batch(**{**vars(batch), "samples": torch.randn(ROWS, 2)})
    found, expected = (m.phases(0)[1].loss(samples, FixedRandom(5)) for m in (adversarial, plain))
    torch.testing.assert_close(found.terms["denoise"], expected.terms["denoise"])


def test_the_generators_gan_by_hand() -> None:
    """At SiD's own x_t, divided by SiD's own distance."""
    method, batch = make(lambda_gan=0.2), full_batch(3)
    found = method.phases(0)[0].loss(batch, FixedRandom(1))
    rng = FixedRandom(1)
    x = method.generator(rng.normal(ROWS, 2), batch.cond)
    t = method.process.time(rng.integers(ROWS, 0, 800) / 999)
    x_t = noised(method.process, x, t, rng.normal(ROWS, 2))
    distance = (x - method.teacher.denoiser(x_t, t, batch.cond)).abs().mean(1)
    expected = F.softplus(-method.fake_score(x_t, t, batch.cond, output="both")[1]) / distance.detach()
    torch.testing.assert_close(found.terms["gan"], expected)
    assert found.weights == {"sid": 1.0, "gan": 0.2}
    inputs = list(method.generator.parameters())
    slopes = (torch.autograd.grad(term.sum(), inputs, retain_graph=True) for term in (found.terms["gan"], expected))
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(a, b)


def test_the_discriminators_loss_by_hand() -> None:
    """At the x_t of the denoising, real images at the same levels, weighed by half of its weight."""
    method, batch = make(lambda_telling=0.3), full_batch(3)
    x = torch.randn(ROWS, 2)
    found = method.phases(0)[1].loss(Batch(**{**vars(batch), "samples": x}), FixedRandom(2))
    rng = FixedRandom(2)
    t, fake = levels_of(method, x, rng)
    assert batch.real is not None
    real = noised(method.process, batch.real, t, rng.normal(ROWS, 2))
    mu, on_fake = method.fake_score(fake, t, batch.cond, output="both")
    on_real = method.fake_score(real, t, batch.real_cond, output="both")[1]
    weight = method.teacher.weighting(t)
    torch.testing.assert_close(found.terms["denoise"], weight * (mu - x).square().mean(1))
    torch.testing.assert_close(found.terms["disc"], weight / 2 * (F.softplus(on_fake) + F.softplus(-on_real)))
    assert found.weights == {"denoise": 1.0, "disc": 0.3}


def test_passes_are_shared() -> None:
    method, batch = make(), full_batch(3)
    calls: list[dict[str, object]] = []
    method.fake_score.register_forward_hook(lambda module, inputs, named, out: calls.append(named), with_kwargs=True)
    method.phases(0)[0].loss(batch, FixedRandom())
    method.phases(0)[1].loss(Batch(**{**vars(batch), "samples": torch.randn(ROWS, 2)}), FixedRandom())
    assert calls == [{"output": "both"}, {"output": "both"}, {"output": "logits"}]


@pytest.mark.parametrize("weight", ["lambda_gan", "lambda_telling"])
def test_there_is_always_a_gan(weight: str) -> None:
    with pytest.raises(ValueError, match=weight):
        SiDAConfig(name="sida", **{weight: 0})  # type: ignore[arg-type]
