"""SiDA: SiD at alpha 1 and a GAN on its fake score, and nothing else."""

import pytest
import torch
import torch.nn.functional as F
from fixed_random import FixedRandom
from small import ROWS, full_batch, made_of
from torch import Tensor

from unistep.methods.base import Batch
from unistep.methods.sid import SiDConfig
from unistep.methods.sida import SiDA, SiDAConfig
from unistep.process.noising import noised


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
    found, expected = (m.loss(m.phases(0)[0], batch, FixedRandom(3)) for m in (adversarial, plain))
    assert torch.equal(found.terms["sid"], expected.terms["sid"])
    samples = Batch(**{**vars(batch), "samples": torch.randn(ROWS, 2)})
    found, expected = (m.loss(m.phases(0)[1], samples, FixedRandom(5)) for m in (adversarial, plain))
    torch.testing.assert_close(found.terms["denoise"], expected.terms["denoise"])


def test_the_generators_gan_by_hand() -> None:
    method, batch = make(lambda_gan=0.2), full_batch(3)
    found = method.loss(method.phases(0)[0], batch, FixedRandom(1))
    rng = FixedRandom(1)
    x = method.generator(rng.normal(ROWS, 2), batch.cond)
    rng.integers(ROWS, 0, 800)  # t and the noise of the score-identity loss
    rng.normal(ROWS, 2)
    t, x_t = levels_of(method, x, rng)
    torch.testing.assert_close(found.terms["gan"], F.softplus(-method.fake_score(x_t, t, batch.cond, judged=True)[1]))
    assert found.weights == {"sid": 1.0, "gan": 0.2}


def test_the_discriminators_loss_by_hand() -> None:
    method, batch = make(lambda_telling=0.3), full_batch(3)
    x = torch.randn(ROWS, 2)
    found = method.loss(method.phases(0)[1], Batch(**{**vars(batch), "samples": x}), FixedRandom(2))
    rng = FixedRandom(2)
    levels_of(method, x, rng)  # what the denoising draws
    assert batch.real is not None
    (t, fake), (t_real, real) = levels_of(method, x, rng), levels_of(method, batch.real, rng)
    on_fake = method.fake_score(fake, t, batch.cond, judged=True)[1]
    on_real = method.fake_score(real, t_real, batch.real_cond, judged=True)[1]
    torch.testing.assert_close(found.terms["telling"], F.softplus(on_fake) + F.softplus(-on_real))
    assert found.weights == {"denoise": 1.0, "telling": 0.3}


@pytest.mark.parametrize("weight", ["lambda_gan", "lambda_telling"])
def test_there_is_always_a_gan(weight: str) -> None:
    with pytest.raises(ValueError, match=weight):
        SiDAConfig(name="sida", **{weight: 0})  # type: ignore[arg-type]
