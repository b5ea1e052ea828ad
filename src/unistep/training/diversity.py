"""How far apart samples lie, against the teacher's: within classes where a batch holds pairs enough of them."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

ENOUGH_PAIRS = 100  # of one class, to expect in a batch; 64 samples of 10 classes: 200, their ratio scatters by 6 %


@dataclass(frozen=True)
class Spread:
    """Mean Euclidean distances between two of the teacher's samples.

    Attributes:
        overall: of any two.
        by_class: of two of a class.
        classes: how many there are among the samples, some with a single one perhaps.
    """

    overall: float
    by_class: Mapping[int, float]
    classes: int

    @classmethod
    def of(cls, features: Tensor, labels: Tensor | None) -> "Spread":
        """The spread of features [n, ...] with labels int64 [n] (None: no classes)."""
        same = {} if labels is None else {c: features[labels == c] for c in labels.unique().tolist()}
        pairs = {c: mean_distance(rows) for c, rows in same.items() if len(rows) > 1}
        return cls(mean_distance(features), pairs, len(same))

    def ratio(self, features: Tensor, labels: Tensor | None) -> float:
        """Mean distance of two samples over that of the teacher's; nan for fewer than two, or a teacher without spread.

        A generator that answers each class with one image is as diverse as its teacher over all classes, for these lie
        far apart. So where ten classes share a batch of 64, pairs of a class are compared, each with its own class's
        distance; with classes too many for that, any two.

        Args:
            features: [n, ...].
            labels: int64 [n] or None.
        """
        n = len(features)
        if labels is None or n * (n - 1) / 2 < ENOUGH_PAIRS * self.classes or not self.by_class:
            return mean_distance(features) / self.overall if self.overall > 0 else float("nan")
        unit = torch.tensor([self.by_class.get(c, float("nan")) for c in labels.tolist()])
        i, j = torch.triu_indices(n, n, 1)
        pairs = (labels[i] == labels[j]).cpu() & (unit[i] > 0)
        distances = torch.pdist(features.float().flatten(1)).cpu()
        return float((distances[pairs] / unit[i][pairs]).mean())


def mean_distance(features: Tensor) -> float:
    """Mean Euclidean distance of two rows of [n, ...]; nan for fewer than two."""
    return float(torch.pdist(features.float().flatten(1)).mean()) if len(features) > 1 else float("nan")
