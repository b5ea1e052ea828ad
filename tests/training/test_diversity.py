"""How far apart samples lie, against the teacher's: closed forms, and what a collapse within classes looks like."""

import math

import pytest
import torch
from torch import Tensor

from unistep.training.monitor_samples import Spread, mean_distance

CLASSES, EACH = 10, 40


def classes_apart(rows: int, seed: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Ten classes that lie far apart, class c with a standard deviation of (1 + c) / 10."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % CLASSES
    centres = 50 * torch.eye(CLASSES)
    return centres[labels] + scale * (1 + labels[:, None]) / 10 * torch.randn(
        rows, CLASSES, generator=generator
    ), labels


def test_mean_distance_by_hand() -> None:
    assert mean_distance(torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])) == pytest.approx((5 + 0 + 5) / 3)
    assert mean_distance(torch.tensor([[[0.0], [0.0]], [[3.0], [4.0]]])) == pytest.approx(5)
    assert math.isnan(mean_distance(torch.zeros(1, 2)))


@pytest.mark.parametrize("scale", [0.1, 0.5, 1.0])
def test_a_collapse_within_classes_shows_in_the_classes_only(scale: float) -> None:
    x, labels = classes_apart(EACH * CLASSES, 0)
    y, same = classes_apart(64, 1, scale)
    spread = Spread.of(x, labels)
    assert spread.ratio(y, same) == pytest.approx(scale, rel=0.1)
    assert spread.ratio(y, None) == pytest.approx(1, rel=0.05)  # over all classes nothing is to be seen


def test_each_pair_is_measured_by_its_own_class() -> None:
    x, labels = classes_apart(EACH * CLASSES, 0)
    spread, one = Spread.of(x, labels), labels == 3
    doubled = torch.where((labels == 3)[:, None], 2 * x, x)
    pairs = [(labels == c).sum().item() for c in range(CLASSES)]
    assert pairs == [EACH] * CLASSES  # so that each class counts alike
    assert spread.ratio(x, labels) == pytest.approx(1)
    assert spread.ratio(doubled, labels) == pytest.approx(1 + 1 / CLASSES)
    assert spread.by_class[3] == pytest.approx(mean_distance(x[one]))


def test_a_reference_with_one_sample_of_most_classes_compares_any_two() -> None:
    """Two classes of many that happen to occur twice are no measure."""
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.cat([torch.arange(62), torch.arange(2)])
    spread = Spread.of(x, labels)
    assert len(spread.by_class) == 2
    assert spread.ratio(x, torch.arange(64)) == pytest.approx(1)


def test_with_few_pairs_of_a_class_any_two_are_compared() -> None:
    x, labels = classes_apart(EACH * CLASSES, 0)
    spread = Spread.of(x, labels)
    y, same = classes_apart(45, 1, 0.0)  # 45 * 44 / 2 < 100 * 10
    assert spread.ratio(y, same) == pytest.approx(1, rel=0.05)
    y, same = classes_apart(46, 1, 0.0)
    assert spread.ratio(y, same) == 0


def test_there_is_no_telling_without_a_pair_or_a_spread() -> None:
    x = torch.randn(8, 3)
    assert math.isnan(Spread.of(x, None).ratio(x[:1], None))
    assert math.isnan(Spread.of(torch.zeros(8, 3), None).ratio(x, None))
    unseen = Spread.of(x, torch.zeros(8, dtype=torch.int64))
    many = torch.randn(20, 3)
    assert math.isnan(unseen.ratio(many, torch.ones(20, dtype=torch.int64)))
    assert unseen.ratio(many, torch.zeros(20, dtype=torch.int64)) > 0
