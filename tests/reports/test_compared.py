"""A comparison in words and in its figure."""

import math

import pytest

from unistep.evaluation.comparison import ComparedRow, Comparison
from unistep.reports.compared import cells
from unistep.reports.compared_page import legible, sideways, verdict


def test_what_is_missing_is_said_once_for_each_reason() -> None:
    distances = {"a": 0.25, "b": 1 / 7}
    rows = tuple(ComparedRow(name=n, role="entry", figures={"frechet": [d]}) for n, d in distances.items())
    comparison = Comparison(
        name="x", about="", kind="images", distance="FD", budget="10 network evaluations each", rows=rows,
        missing={"c": "not run yet", "d": "no data", "e": "not run yet"},
    )  # fmt: skip
    assert cells(comparison).note == "10 network evaluations each; c, e: not run yet; d: no data"
    assert verdict(comparison).endswith("b has the smallest Frechet distance, 0.143; a follows with 0.250.")


def test_labels_of_the_axis_do_not_lie_over_each_other() -> None:
    assert legible([1, 20, 18, 10, 1, 8, 32]) == [1, 8, 10, 18, 32]


@pytest.mark.parametrize("costs", [[1], [1] * 10, [1, 2, 1, 4, 2, 1]])
def test_entries_stand_apart_and_at_their_own_cost(costs: list[int]) -> None:
    places = [sideways(index, costs) for index in range(len(costs))]
    assert len(set(places)) == len(places)
    for place, cost in zip(places, costs, strict=True):
        assert round(place) == cost
    for cost in set(costs):
        logs = [math.log(place) for place, own in zip(places, costs, strict=True) if own == cost]
        assert math.exp(sum(logs) / len(logs)) == pytest.approx(cost)
