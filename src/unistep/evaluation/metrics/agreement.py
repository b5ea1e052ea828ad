"""Class agreement: the share of conditional samples that the judge takes for the class asked for."""

from collections.abc import Mapping
from typing import Any

from unistep.evaluation.extractors.base import Observed, require_samples


class ClassAgreement:
    """Hits over asked, for samples that were asked to be of a class (label >= 0) and that the judge takes for one.

    No figure if no class was asked for or if the judge tells none apart.
    """

    name = "agreement"
    needed, real_needed = 1, 0

    def __init__(self) -> None:
        self.hits, self.asked, self.seen = 0, 0, 0

    def update(self, seen: Observed) -> None:
        asked = (seen.labels >= 0) & (seen.predicted >= 0)
        self.seen += len(seen)
        self.asked += int(asked.sum())
        self.hits += int((asked & (seen.predicted == seen.labels)).sum())

    def merge(self, other: "ClassAgreement") -> None:
        self.seen, self.asked, self.hits = self.seen + other.seen, self.asked + other.asked, self.hits + other.hits

    def compute(self) -> dict[str, float]:
        require_samples(self.name, self.seen, 1, "a share of nothing is no number")
        return {"agreement": self.hits / self.asked} if self.asked else {}

    def settings(self) -> Mapping[str, Any]:
        return {"asked": self.asked}
