"""Class agreement and diversity on cases that can be counted by hand."""

from types import SimpleNamespace

import pytest
import torch

from unistep.errors import UserError
from unistep.evaluation import Observed
from unistep.evaluation.metrics.agreement import ClassAgreement
from unistep.evaluation.metrics.diversity import Diversity, mean_pairwise_distance


def seen(labels: list[int], predicted: list[int], features: torch.Tensor | None = None) -> Observed:
    features = torch.zeros(len(labels), 1) if features is None else features
    return Observed(features=features, labels=torch.tensor(labels), predicted=torch.tensor(predicted))


def test_agreement_counts_what_was_asked_for() -> None:
    a, b = ClassAgreement(), ClassAgreement()
    a.update(seen([0, 1, 2], [0, 1, 1]))
    b.update(seen([3, -1], [0, 0]))
    a.merge(b)
    assert a.compute() == {"agreement": 2 / 4}


def test_unconditional_samples_have_no_agreement() -> None:
    metric = ClassAgreement()
    metric.update(seen([-1, -1], [0, 1]))
    assert metric.compute() == {}
    with pytest.raises(UserError, match="agreement: found 0 samples, needed at least 1"):
        ClassAgreement().compute()


def test_pairwise_distance_by_hand() -> None:
    assert mean_pairwise_distance(torch.tensor([[0.0], [3.0], [9.0]])) == pytest.approx((3 + 9 + 6) / 3)


def test_diversity_is_a_ratio_within_classes() -> None:
    real = SimpleNamespace(features=torch.tensor([[0.0], [2.0], [100.0], [104.0]]), labels=torch.tensor([0, 0, 1, 1]))
    half, other = Diversity(real), Diversity(real)
    half.update(seen([0, 1], [0, 1], torch.tensor([[5.0], [50.0]])))
    other.update(seen([0, 1], [0, 1], torch.tensor([[6.0], [52.0]])))
    half.merge(other)
    assert half.compute() == {"diversity": pytest.approx(0.5)}


def test_collapse_shows_and_unconditional_samples_are_compared_as_a_whole() -> None:
    rows = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    real = SimpleNamespace(features=rows, labels=torch.arange(50) % 2)
    whole, collapsed = Diversity(real), Diversity(real)
    whole.update(seen([-1] * 50, [0] * 50, rows))
    collapsed.update(seen([-1] * 50, [0] * 50, torch.zeros(50, 3)))
    assert whole.compute() == {"diversity": pytest.approx(1)}
    assert collapsed.compute() == {"diversity": 0}


def test_a_class_with_one_sample_is_named() -> None:
    real = SimpleNamespace(features=torch.randn(4, 2), labels=torch.tensor([0, 0, 1, 1]))
    metric = Diversity(real)
    metric.update(seen([0, 0, 1], [0, 0, 1], torch.randn(3, 2)))
    with pytest.raises(UserError, match="diversity, class 1: found 1 samples, needed at least 2"):
        metric.compute()


def test_a_class_with_a_single_real_image_is_left_out_and_named() -> None:
    torch.manual_seed(0)
    features, labels = torch.randn(41, 8), torch.tensor([*[0] * 20, *[1] * 20, 2])
    metric = Diversity(SimpleNamespace(features=features, labels=labels))  # type: ignore[arg-type]
    metric.update(Observed(features=features, labels=labels, predicted=labels))
    assert metric.compute()["diversity"] == pytest.approx(1.0)
    assert metric.settings()["classes_left_out"] == [2]
    unknown = torch.tensor([*labels.tolist()[:-1], 7])  # a class that the reference does not have at all
    metric = Diversity(SimpleNamespace(features=features, labels=labels))  # type: ignore[arg-type]
    metric.update(Observed(features=features, labels=unknown, predicted=unknown))
    assert metric.compute()["diversity"] == pytest.approx(1.0)
    assert metric.settings()["classes_left_out"] == [2, 7]
