"""Counted evaluations: what each kind of forward and backward pass counts, and each call once."""

import pytest
import torch
from torch import Tensor, nn

from unistep.training.metering import counted


class Two(nn.Module):
    """A network with two outputs, as a fake score with a head has."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.inner(x)
        return y, y.sum(1)


@pytest.mark.parametrize(
    ("trained", "moves", "expected"), [(False, False, (5, 0)), (False, True, (5, 5)), (True, False, (5, 10))]
)
def test_a_backward_pass_counts_one_through_and_one_into_the_weights(
    trained: bool, moves: bool, expected: tuple[int, int]
) -> None:
    network, x = nn.Linear(2, 2).requires_grad_(trained), torch.ones(5, 2, requires_grad=moves)
    with counted([network, network]) as tally:
        y = network(x).sum()
        if y.requires_grad:
            y.backward()
    assert (tally.forward, tally.backward) == expected
    assert tally.evaluations == sum(expected)


def test_a_call_with_two_outputs_counts_its_backward_pass_once() -> None:
    network = Two()
    with counted([network]) as tally:
        y, logit = network(torch.ones(3, 2))
        (y.sum() + logit.sum()).backward()
    assert (tally.forward, tally.backward) == (3, 6)


def test_an_answer_that_no_gradient_reaches_has_no_backward_pass() -> None:
    network = nn.Linear(2, 2)
    with counted([network]) as tally:
        used, unused = network(torch.ones(3, 2)), network(torch.ones(4, 2))
        (used.sum() + unused.detach().sum()).backward()
        with torch.no_grad():
            network(torch.ones(2, 2))
    assert (tally.forward, tally.backward) == (9, 6)


def test_nothing_is_counted_afterwards() -> None:
    network = nn.Linear(2, 2)
    with counted([network]) as tally:
        pass
    network(torch.ones(3, 2)).sum().backward()
    assert tally.evaluations == 0
