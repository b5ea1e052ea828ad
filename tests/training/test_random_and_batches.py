"""Randomness and batches as pure functions of the step, divided among parts without overlap."""

from collections.abc import Callable, Set

import pytest
import torch
from torch import Tensor

from unistep.data.order import rows_for_step
from unistep.errors import UserError
from unistep.methods.base import LossOutput, Phase, Random, Stream
from unistep.pairs import Pairs
from unistep.teachers.codecs import PixelCodec
from unistep.training import EncodedImages, Shard, StepRandom, Streams, TensorImages
from unistep.types import Cond

DRAWS: tuple[Callable[[Random, int], Tensor], ...] = (
    lambda rng, rows: rng.normal(rows, 3, 2),
    lambda rng, rows: rng.normal(rows),
    lambda rng, rows: rng.integers(rows, 20, 980),
    lambda rng, rows: rng.uniform(rows),
)


class Labels:
    names = ("a", "b", "c")

    def labels(self, seeds: Tensor) -> Tensor:
        return seeds % 3

    def from_seeds(self, seeds: Tensor) -> Cond:
        return self.labels(seeds)

    def from_labels(self, labels: Tensor) -> Cond:
        return labels + 10

    def null(self, rows: int) -> Cond:
        return torch.full((rows,), -1)

    def config(self) -> dict[str, object]:
        return {}


class FakePairs:
    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: Tensor) -> Pairs:
        return Pairs(z=index[:, None].float(), x=-index[:, None].float(), cond=index, seeds=index)


@pytest.mark.parametrize("count", [2, 4])
def test_parts_make_up_the_whole(count: int) -> None:
    whole = StepRandom(1, 5, "generator")
    parts = [StepRandom(1, 5, "generator", Shard(i, count)) for i in range(count)]
    for draw in DRAWS:  # in the same order on all
        expected = draw(whole, 8)
        for i, rng in enumerate(parts):
            assert torch.equal(draw(rng, 8 // count), Shard(i, count).take(expected))


def test_streams_of_numbers_differ() -> None:
    drawn = [
        StepRandom(*key).normal(4)
        for key in ((0, 0, "generator"), (1, 0, "generator"), (0, 1, "generator"), (0, 0, "fake_score"))
    ]
    assert len({tuple(x.tolist()) for x in drawn}) == 4
    assert torch.equal(StepRandom(0, 0, "generator").normal(4), drawn[0])


def test_bounds_are_inclusive() -> None:
    x = StepRandom(0, 0, "x").integers(1000, 3, 5)
    assert x.dtype == torch.int64 and x.unique().tolist() == [3, 4, 5]
    u = StepRandom(0, 0, "x").uniform(1000)
    assert 0 <= u.min() and u.max() < 1 and u.dtype == torch.float32


def phase(name: str, inputs: Set[Stream] = frozenset({"pairs", "images"})) -> Phase:
    return Phase(name=name, trains=(), loss=lambda batch, rng: LossOutput(terms={}, weights={}), inputs=inputs)


def streams() -> Streams:
    images = EncodedImages(
        torch.arange(5, dtype=torch.uint8).reshape(5, 1, 1, 1), torch.arange(5), PixelCodec(), Labels()
    )
    return Streams(seed=3, batch=8, pair_batch=4, conditioner=Labels(), pairs=FakePairs(), images=images)


@pytest.mark.parametrize("step", [0, 1, 9])
def test_batches_divide_into_parts(step: int) -> None:
    whole = streams().batch(step, phase("generator"), Shard())
    assert whole.size == 8 and whole.pair_z is not None and len(whole.pair_z) == 4
    for i in (1, 0):
        half = streams().batch(step, phase("generator"), Shard(i, 2))
        assert half.size == 4
        for name in ("cond", "real", "real_cond", "pair_z", "pair_x", "pair_cond"):
            assert torch.equal(getattr(half, name), Shard(i, 2).take(getattr(whole, name))), name


def test_rows_belong_together() -> None:
    batch = streams().batch(2, phase("generator"), Shard())
    assert isinstance(batch.pair_cond, Tensor) and batch.pair_z is not None and batch.pair_x is not None
    assert torch.equal(batch.pair_z[:, 0].long() + 10, batch.pair_cond)  # stored labels go through the conditioner
    assert torch.equal(batch.pair_x, -batch.pair_z)
    assert batch.real is not None and isinstance(batch.real_cond, Tensor)
    torch.testing.assert_close((batch.real.flatten() + 1) * 127.5, batch.real_cond.float() - 10)


def test_pairs_are_walked_through_evenly() -> None:
    seen = [streams().batch(step, phase("generator"), Shard()).pair_cond for step in range(7)]
    counts = torch.bincount(torch.cat([c for c in seen if isinstance(c, Tensor)]))
    assert counts.tolist() == [0] * 10 + [4] * 7
    assert rows_for_step(7, 4, 0, 0).unique().numel() == 4


def test_phases_see_rows_of_their_own_and_pairs_where_asked() -> None:
    source = Streams(seed=0, batch=64, conditioner=Labels(), pairs=FakePairs())
    a, b = (source.batch(0, p, Shard()) for p in (phase("generator"), phase("fake_score.1", set())))
    assert a.pair_z is not None and b.pair_z is None
    assert isinstance(a.cond, Tensor) and isinstance(b.cond, Tensor) and not torch.equal(a.cond, b.cond)
    bare = Streams(seed=0, batch=4).batch(0, phase("x"), Shard())
    assert (bare.cond, bare.real, bare.pair_z) == (None, None, None)


def test_uneven_batches_and_empty_streams_are_refused() -> None:
    with pytest.raises(UserError, match=r"training.batch: found 8, expected a multiple of 3 \(ranks times"):
        streams().batch(0, phase("generator"), Shard(0, 3))
    with pytest.raises(UserError, match="training.pair_batch: found 4, expected a multiple of 8"):
        streams().batch(0, phase("generator"), Shard(0, 8))
    with pytest.raises(UserError, match="images: found 0 rows"):
        Streams(seed=0, batch=4, images=TensorImages(torch.zeros(0, 2)))


def test_images_without_labels() -> None:
    x, cond = EncodedImages(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), None, PixelCodec()).rows(torch.tensor([1]))
    assert x.shape == (1, 1, 4, 4) and cond is None
    labelled = EncodedImages(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([4, 5]), PixelCodec())
    assert torch.equal(labelled.rows(torch.tensor([1]))[1], torch.tensor([5]))  # type: ignore[arg-type]
