"""Entries of one cost stand beside each other in the figure, none nearer to another cost than to its own."""

import math

import pytest

from unistep.reports.compared_page import sideways


@pytest.mark.parametrize("costs", [[1], [1] * 10, [1, 2, 1, 4, 2, 1]])
def test_entries_stand_apart_and_at_their_own_cost(costs: list[int]) -> None:
    places = [sideways(index, costs) for index in range(len(costs))]
    assert len(set(places)) == len(places)
    for place, cost in zip(places, costs, strict=True):
        assert round(place) == cost
    for cost in set(costs):
        logs = [math.log(place) for place, own in zip(places, costs, strict=True) if own == cost]
        assert math.exp(sum(logs) / len(logs)) == pytest.approx(cost)
