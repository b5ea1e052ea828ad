"""A straight line through measurements: what is fixed, and what grows with the number of rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True)
class Line:
    """y = fixed + slope x."""

    fixed: float
    slope: float

    def at(self, x: float) -> float:
        """Its value at x."""
        return self.fixed + self.slope * x

    @classmethod
    def through(cls, points: Mapping[float, float]) -> Self:
        """The line of least relative squares through x -> y, x and y > 0, that falls nowhere and is positive at 0.

        Measurements are noisy, costs are not negative: where the best line would fall, it is flat, and where it would
        begin below zero, it goes through zero. One point alone is taken to be proportional to x.
        """
        x, y = np.array(list(points)), np.array(list(points.values()))
        if len(x) == 1:
            return cls(0.0, float(y[0] / x[0]))
        slope, fixed = np.polyfit(x, y, 1, w=1 / y)
        if slope < 0:
            return cls(float((1 / y).sum() / (1 / y**2).sum()), 0.0)
        if fixed < 0:
            return cls(0.0, float((x / y).sum() / (x**2 / y**2).sum()))
        return cls(float(fixed), float(slope))
