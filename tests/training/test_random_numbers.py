"""The numbers themselves: distribution, rows that do not depend on each other, the same on every processor."""

import hashlib
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

from unistep.diffusion.samplers import seeded_normal
from unistep.diffusion.samplers.seeds import seeded_uniform
from unistep.pairs.noise import Noise
from unistep.training.random import CHUNK, Shard, StepRandom, fill_normal, next_words

EXPECTED = [
    "7d8741963c5f0bfa", "a5ff21c08b256650", "43bcd02d7e9f412a", "4c7c5975d82a6acb",  # of a training step
    "9e62bd325a809e2e", "e8d17d4236a1ebe5", "ce3c6584eaec08dd",  # of seeds, and the z of pairs
]  # fmt: skip


def hashes() -> list[str]:
    """Of everything that is drawn, in full."""
    rng, seeds = StepRandom(3, 7, "generator", Shard(1, 2)), torch.arange(64)
    drawn = [rng.normal(6, 4, 9, 9), rng.normal(6), rng.uniform(6), rng.integers(6, 0, 2**62)]
    drawn += [seeded_normal(seeds, (4, 33, 33)), seeded_uniform(seeds, 5)]
    drawn += [Noise(5, 8, (3, 5)).rows(torch.tensor([2, 7]))]
    return [hashlib.sha256(x.numpy().tobytes()).hexdigest()[:16] for x in drawn]


def test_every_machine_draws_these_numbers_bit_for_bit() -> None:
    assert hashes() == EXPECTED


@pytest.mark.slow
def test_vector_instructions_change_no_bit() -> None:
    off = " ".join(name for name in __cpu_dispatch__ if __cpu_features__[name])
    without = {"NPY_DISABLE_CPU_FEATURES": off, "ATEN_CPU_CAPABILITY": "default"}
    script = "import test_random_numbers as t, numpy._core._multiarray_umath as u; print(t.hashes());"
    script += "print([n for n in u.__cpu_dispatch__ if u.__cpu_features__[n]])"
    environment = {**os.environ, **without, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    found = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == [repr(EXPECTED), "[]"]


@settings(max_examples=40, deadline=None)
@given(
    ranks=st.sampled_from([1, 2, 3, 8]), rows=st.integers(1, 5), dims=st.lists(st.integers(1, 7), max_size=3),
    before=st.integers(0, 2), seed=st.integers(0, 2**40),
)  # fmt: skip
def test_a_row_does_not_depend_on_who_draws_it(ranks: int, rows: int, dims: list[int], before: int, seed: int) -> None:
    def draw(part: Shard) -> list[torch.Tensor]:
        rng, mine = StepRandom(seed, 4, "phase", part), rows * ranks // part.count
        for _ in range(before):
            rng.uniform(mine)
        return [rng.normal(mine, *dims), rng.integers(mine, -3, 10**6), rng.uniform(mine)]

    whole, parts = draw(Shard()), [draw(Shard(i, ranks)) for i in range(ranks)]
    for k, expected in enumerate(whole):
        assert torch.equal(torch.cat([part[k] for part in parts]), expected)


def test_rows_of_any_size_are_cut_into_chunks_without_a_trace() -> None:
    whole = StepRandom(0, 0, "x").normal(3, 2 * CHUNK + 7)
    assert torch.equal(StepRandom(0, 0, "x", Shard(2, 3)).normal(1, 2 * CHUNK + 7), whole[2:])
    assert StepRandom(0, 0, "x").normal(2, 0).shape == (2, 0)


def test_normals_are_normal() -> None:
    x = StepRandom(0, 0, "x").normal(64, 1 << 14).double().flatten()
    n = len(x)
    for power, moment in enumerate((0, 1, 0, 3, 0, 15), start=1):  # each within five standard errors
        spread = math.sqrt(math.prod(range(2 * power - 1, 0, -2)) - moment**2)
        assert abs(float(x.pow(power).mean()) - moment) < 5 * spread / math.sqrt(n)
    cdf, steps = torch.special.ndtr(x.sort().values), torch.arange(1, n + 1, dtype=torch.float64) / n
    assert float((cdf - steps).abs().max()) < 1.95 / math.sqrt(n)  # Kolmogorov and Smirnov, at 1 in 1000
    assert abs(float((x[0::2] * x[1::2]).mean())) < 5 / math.sqrt(n / 2)
    rows = x.reshape(64, -1)
    assert abs(float((rows[:, : 1 << 13] * rows[:, 1 << 13 :]).mean())) < 5 / math.sqrt(n / 2)  # cosines and sines
    assert 4.5 < float(x.abs().max()) < 6.7


def test_normals_are_box_and_muller_s_to_rounding() -> None:
    words = next_words(np.random.Generator(np.random.Philox(key=5)), 1000).reshape(10, 100)
    found = np.empty((10, 200), np.float32)
    fill_normal(found, words)
    low, high = (words & np.uint64(2**31 - 1)).astype(float), (words >> np.uint64(32)).astype(float)
    sign, high = np.where(high >= 2**31, -1, 1), high % 2**31
    radius, angle = sign * np.sqrt(-2 * np.log((low + 0.5) / 2**31)), (high - 2**30 + 0.5) * np.pi / 2**31
    expected = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], 1)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    ends = np.array([[0, 2**31 - 1, 2**63 + 2**31 - 1]], np.uint64)  # the longest radius, and none
    found = np.empty((1, 6), np.float32)
    fill_normal(found, ends)
    assert np.isfinite(found).all() and float(np.hypot(found[0, 0], found[0, 3])) == pytest.approx(6.66, abs=0.01)


def test_words_are_the_generator_s_own() -> None:
    raw = np.random.Philox(key=9, counter=3).random_raw(50)
    assert np.array_equal(next_words(np.random.Generator(np.random.Philox(key=9, counter=3)), 50), raw)


def test_whole_numbers_and_uniforms_are_even() -> None:
    rng = StepRandom(0, 0, "x")
    counts = torch.bincount(rng.integers(100_000, 0, 9)).double()
    assert float(((counts - 1e4) ** 2 / 1e4).sum()) < 27.9  # chi squared with 9 degrees of freedom, at 1 in 1000
    u = rng.uniform(100_000).double()
    assert abs(float(u.mean()) - 0.5) < 5 / math.sqrt(12 * len(u)) and abs(float(u.var()) - 1 / 12) < 1e-3
