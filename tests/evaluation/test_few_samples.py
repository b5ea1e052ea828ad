"""Few samples or few real images leave out the figures that need more, and say so; a distance still decides."""

import pytest
import torch

from unistep.errors import UserError
from unistep.evaluation.extractors.base import Observed
from unistep.evaluation.measure import (
    all_metrics,
    feed,
    figures,
    left_out,
    quick_metrics,
    require_distance,
    require_enough_samples,
    usable,
)
from unistep.evaluation.reference import ReferenceFeatures, reference_of

WIDTH = 1280  # features of EfficientNet-Lite0


def reference(images: int, width: int = WIDTH) -> ReferenceFeatures:
    draws = torch.Generator().manual_seed(0)
    return reference_of(torch.randn(images, width, generator=draws), torch.full((images,), -1))


@pytest.fixture(scope="module")
def many() -> ReferenceFeatures:
    return reference(1500)


def observed(rows: int, shift: float = 0.0, width: int = WIDTH) -> Observed:
    features = torch.randn(rows, width, generator=torch.Generator().manual_seed(1)) + shift
    return Observed(features=features, labels=torch.full((rows,), -1), predicted=torch.full((rows,), -1))


@pytest.mark.parametrize(
    ("samples", "names", "notes"),
    [
        (2560, {"frechet", "kid", "prdc", "diversity"}, ()),
        (2559, {"kid", "prdc", "diversity"}, ("left out: frechet (needs 2,560), because there are 2,559 samples",)),
        (
            600,
            {"diversity"},
            ("left out: frechet (needs 2,560), kid (needs 1,000), prdc (needs 1,000), because there are 600 samples",),
        ),
    ],
)
def test_samples(samples: int, names: set[str], notes: tuple[str, ...], many: ReferenceFeatures) -> None:
    metrics = all_metrics(many)
    assert {metric.name for metric in usable(metrics, many, samples)} == {*names, "agreement"}
    assert left_out(metrics, many, samples) == notes
    require_enough_samples(many, samples, None)


def test_real_images_no_more_than_features() -> None:
    few = reference(WIDTH)
    assert left_out(all_metrics(few), few, 10_000) == (
        "left out: frechet (needs 1,281), because the reference is of 1,280 real images",
    )
    assert "frechet" in {
        metric.name for metric in usable(all_metrics(reference(WIDTH + 1)), reference(WIDTH + 1), 2560)
    }


def test_figures_of_few_samples(many: ReferenceFeatures) -> None:
    metrics = usable(all_metrics(many), many, 600)
    feed(metrics, observed(600))
    assert figures(metrics)["diversity"] == pytest.approx(1, abs=0.01)


def test_the_kernel_distance_decides_where_the_frechet_distance_cannot() -> None:
    real = reference(300, 64)
    assert [metric.name for metric in quick_metrics(real, 128)] == ["frechet", "agreement", "diversity"]
    found = []
    for shift in (0.0, 0.3):
        metrics = quick_metrics(real, 120)
        assert metrics[0].name == "kid"
        feed(metrics, observed(120, shift, 64))
        found.append(figures(metrics)["kid"])
    assert found[1] > found[0] + 0.05
    require_distance(real, 120, "samples_during_training")


@pytest.mark.parametrize(
    ("images", "samples", "during", "message"),
    [
        (1500, 1, None, "evaluation.samples: found 1, expected at least 2; fewer make no figure"),
        (1500, None, 99, "evaluation.samples_during_training: found 99, expected at least 100: fewer make no distance"),
        (60, None, 2000, "evaluation.real: found 60 images, expected at least 100: weights are chosen by a distance"),
        (
            1500,
            1,
            99,
            "evaluation.samples: found 1, expected at least 2; fewer make no figure\n"
            "evaluation.samples_during_training: found 99, expected at least 100: fewer make no distance",
        ),
    ],
)
def test_too_few_for_any_figure(images: int, samples: int | None, during: int | None, message: str) -> None:
    with pytest.raises(UserError) as caught:
        require_enough_samples(reference(images), samples, during)
    assert str(caught.value).startswith(message)


def test_published_moments_need_twice_as_many_samples_as_features(many: ReferenceFeatures) -> None:
    moments = ReferenceFeatures(torch.empty(0, WIDTH), torch.empty(0, dtype=torch.int64), many.mean, many.cov, None)
    require_enough_samples(moments, 2560, 2560)
    with pytest.raises(
        UserError, match=r"evaluation\.samples: found 2559, expected at least 2560; fewer make no figure"
    ):
        require_enough_samples(moments, 2559, None)
    with pytest.raises(UserError, match=r"evaluation\.samples_during_training: found 2000, expected at least 2560"):
        require_enough_samples(moments, None, 2000)
