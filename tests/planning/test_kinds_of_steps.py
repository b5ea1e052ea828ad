"""Which kinds of step a training has and how often: against loops and closed forms."""

from collections import Counter
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_plan import tiny_dmd, tiny_teacher

from unistep.costing.kinds import kinds_of_steps
from unistep.costing.tally import times_due
from unistep.methods.base import Batch, LossOutput, Method, Phase, Random

TEACHER = tiny_teacher()


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 3), st.integers(1, 30))
def test_dmd_has_at_most_three_kinds_as_many_as_its_milestones_say(a: int, b: int, updates: int, steps: int) -> None:
    fake_from, dm_from = sorted((a, b))
    method = tiny_dmd(
        TEACHER, fake_score_from_step=fake_from, dm_from_step=dm_from, fake_score_updates_per_step=updates
    )
    kinds = kinds_of_steps(method, steps)
    fake = ["fake_score", "fake_score.1", "fake_score.2"][:updates]
    expected = {"regression": min(fake_from, steps)} if updates else {"regression": min(dm_from, steps)}
    expected[" + ".join(["regression", *fake])] = (
        expected.get("regression", 0) if not updates else max(min(dm_from, steps) - fake_from, 0)
    )
    expected[" + ".join(["generator", *fake])] = max(steps - dm_from, 0)
    assert {kind.name: kind.count for kind in kinds} == {name: n for name, n in expected.items() if n}


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 3), st.integers(1, 30))
def test_the_sum_over_kinds_is_the_sum_over_steps(a: int, b: int, updates: int, steps: int) -> None:
    method = tiny_dmd(
        TEACHER, fake_score_from_step=min(a, b), dm_from_step=max(a, b), fake_score_updates_per_step=updates
    )

    def cost(phases: tuple[Phase, ...]) -> int:
        return sum(7 if phase.trains == ("generator",) else 3 - phase.reuses_samples for phase in phases)

    by_kind = sum(kind.count * cost(kind.phases) for kind in kinds_of_steps(method, steps))
    assert by_kind == sum(cost(method.phases(step)) for step in range(steps))


class EveryFifth(Method):
    """A generator that learns every fifth step, as DMD2's two time scales have it."""

    ema_network, networks = "generator", MappingProxyType({})

    def phases(self, step: int) -> tuple[Phase, ...]:
        critic = Phase(name="critic", trains=("critic",), loss=self.loss)
        return (Phase(name="generator", trains=("generator",), loss=self.loss), critic) if step % 5 == 0 else (critic,)

    def loss(self, batch: Batch, rng: Random) -> LossOutput:
        raise AssertionError("nothing is computed")


@pytest.mark.parametrize("steps", [1, 5, 6, 103])
def test_kinds_may_alternate(steps: int) -> None:
    kinds = {kind.name: (kind.first, kind.count) for kind in kinds_of_steps(EveryFifth(), steps)}
    counted = Counter("generator + critic" if step % 5 == 0 else "critic" for step in range(steps))
    assert {name: count for name, (_, count) in kinds.items()} == counted
    assert kinds["generator + critic"][0] == 0 and kinds.get("critic", (1, 0))[0] == 1


@given(st.none() | st.integers(1, 50), st.integers(1, 100))
def test_what_is_due_every_so_many_steps_is_due_at_the_end_too(every: int | None, steps: int) -> None:
    due = [step for step in range(1, steps + 1) if step == steps or (every is not None and step % every == 0)]
    assert times_due(every, steps) == len(due)
