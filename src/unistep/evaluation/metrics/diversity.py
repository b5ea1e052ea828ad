"""Diversity: the mean distance between samples of one class, over that of real images of the class."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unistep.evaluation.extractors.base import Observed, Reference, require_samples


def mean_pairwise_distance(features: Tensor) -> float:
    """Mean Euclidean distance over all pairs of different rows, [n, d]; n >= 2."""
    return float(torch.nn.functional.pdist(features.double()).mean())


class Diversity:
    """Mean over classes of (pairwise feature distance of samples / of reference images); 1 = as diverse as real.

    Frechet distance can reward a half-collapsed generator; this shows it. At most `per_class` rows of a class are
    used, the first ones. Where samples or reference have no classes they are compared as a whole. A class of which the
    reference holds less than two images has no spread to compare with: it is left out, and named in the settings.
    """

    name = "diversity"
    real_needed = 2

    def __init__(self, reference: Reference, per_class: int = 500) -> None:
        self.reference = reference
        self.per_class = per_class
        self.parts: list[Observed] = []

    @property
    def needed(self) -> int:
        return 2 * max(1, len(self.reference.labels[self.reference.labels >= 0].unique()))  # two of every class

    def update(self, seen: Observed) -> None:
        self.parts.append(seen.head(len(seen)))

    def merge(self, other: "Diversity") -> None:
        self.parts += other.parts

    def compute(self) -> dict[str, float]:
        require_samples(self.name, sum(map(len, self.parts)), 2, "a pair")
        samples, real = Observed.join(self.parts), self.reference
        classified = all(bool((labels >= 0).any()) for labels in (samples.labels, real.labels))
        labels, real_labels = (samples.labels, real.labels) if classified else (None, None)
        asked = samples.labels.unique().tolist() if classified else [-1]
        classes = [c for c in asked if c < 0 or c not in self.lone_classes()]
        require_samples(f"{self.name}, classes of two or more real images", len(classes), 1, "one")
        ratios = [
            self.spread(samples.features, labels, c) / self.spread(real.features, real_labels, c) for c in classes
        ]
        return {"diversity": sum(ratios) / len(ratios)}

    def spread(self, features: Tensor, labels: Tensor | None, label: int) -> float:
        """Mean pairwise distance within one class; the whole set for label -1 or without labels."""
        rows = features if labels is None or label < 0 else features[labels == label]
        require_samples(f"{self.name}, class {label}", len(rows), 2, "a pair")
        return mean_pairwise_distance(rows[: self.per_class])

    def lone_classes(self) -> list[int]:
        """Classes of the samples and of the reference of which the latter holds fewer than two images."""
        counts = Counter(self.reference.labels.tolist())
        asked = {label for seen in self.parts for label in seen.labels.tolist()}
        return sorted(label for label in asked | set(counts) if label >= 0 and counts[label] < 2)

    def settings(self) -> Mapping[str, Any]:
        left_out = self.lone_classes()
        return {"per_class": self.per_class, **({"classes_left_out": left_out} if left_out else {})}
