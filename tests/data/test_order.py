"""The order of images: a pure function, each image once per epoch."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unistep.data import epoch_order, rows_for_step


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 50), batch=st.integers(1, 70), seed=st.integers(0, 2**40), epochs=st.integers(1, 4))
def test_each_image_comes_once_per_epoch(n: int, batch: int, seed: int, epochs: int) -> None:
    steps = -(-n * epochs // batch)
    line = torch.cat([rows_for_step(n, batch, seed, step) for step in range(steps)])
    assert line.dtype == torch.int64 and len(line) == steps * batch
    for epoch in range(epochs):
        rows = line[epoch * n : (epoch + 1) * n]
        assert torch.equal(rows, epoch_order(n, seed, epoch)) and torch.equal(rows.sort().values, torch.arange(n))


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 50), batch=st.integers(1, 70), seed=st.integers(0, 9), step=st.integers(0, 99))
def test_a_step_depends_on_its_arguments_only(n: int, batch: int, seed: int, step: int) -> None:
    rows = rows_for_step(n, batch, seed, step)
    rows_for_step(7, 3, 1, 5)
    assert torch.equal(rows, rows_for_step(n, batch, seed, step))


def test_orders_differ_by_seed_and_epoch_and_are_the_callers_own() -> None:
    first = epoch_order(100, 0, 0)
    assert not torch.equal(first, epoch_order(100, 0, 1)) and not torch.equal(first, epoch_order(100, 1, 0))
    first.zero_()
    assert int(epoch_order(100, 0, 0).max()) == 99
