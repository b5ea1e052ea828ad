"""Changes of a recipe that take less: real keys, each tried by planning the changed recipe."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from unistep.costing.result import Resource, Suggestion
from unistep.errors import UserError
from unistep.recipes.schema import DistillRecipe, TeachRecipe

Needs = Callable[[Sequence[str], int], Mapping[Resource, int]]
"""Overrides and ranks -> bytes that the changed recipe needs, in each rank.

Raises UserError for overrides that make no recipe.
"""

SAME, OTHER = "learns the same", "learns something else"
MOST_RANKS = 64


@dataclass(frozen=True)
class Family:
    """One knob.

    Attributes:
        resource: what it is turned for.
        changes: what else that changes.
        turns: overrides and ranks, each taking less than the one before.
    """

    resource: Resource
    changes: str
    turns: Sequence[tuple[tuple[str, ...], int]]


def switches(
    recipe: DistillRecipe | TeachRecipe, needs: Needs, available: Mapping[Resource, int]
) -> tuple[Suggestion, ...]:
    """For each knob the least turn with which the recipe fits, or else the furthest; none that saves nothing.

    Where no knob is enough, several are turned together, if that is.

    Args:
        recipe: that does not fit.
        needs: of changed recipes.
        available: bytes that there are.
    """
    now = needs((), 1)
    short: list[Resource] = [resource for resource in now if now[resource] > available[resource]]
    tried = (turned(family, needs, now, available) for family in families(recipe) if family.resource in short)
    found = tuple(switch for switch in tried if switch is not None)
    lacking: list[Resource] = [
        resource for resource in short if not any(s.fits for s in found if s.resource == resource)
    ]
    joined = (combine([s for s in found if s.resource == r], needs, now[r], available[r]) for r in lacking)
    return found + tuple(switch for switch in joined if switch is not None)


def combine(found: Sequence[Suggestion], needs: Needs, now: int, available: int) -> Suggestion | None:
    """Switches of one resource on top of each other, until the recipe fits; None if it never does.

    Those that need several processes stay out: where there are others, they are the user's to know.
    """
    chosen, least = (), now
    for switch in found:
        if switch.ranks > 1:
            continue
        try:
            then = needs((*chosen, *switch.set), 1)[switch.resource]
        except UserError:  # they do not go together
            continue
        if then < least:
            chosen, least = (*chosen, *switch.set), then
        if least <= available:
            return Suggestion(
                set=chosen, resource=switch.resource, saves=now - least, fits=True, changes="all together"
            )
    return None


def turned(
    family: Family, needs: Needs, now: Mapping[Resource, int], available: Mapping[Resource, int]
) -> Suggestion | None:
    """The switch of one knob, None if it saves nothing."""
    best: Suggestion | None = None
    for overrides, ranks in family.turns:
        try:
            then = needs(overrides, ranks)[family.resource]
        except UserError:  # this recipe cannot be changed so
            continue
        saves, fits = now[family.resource] - then, then <= available[family.resource]
        if saves > (best.saves if best else 0):
            best = Suggestion(
                set=overrides, ranks=ranks, resource=family.resource, saves=saves, fits=fits, changes=family.changes
            )
        if fits:
            break
    return best


def families(recipe: DistillRecipe | TeachRecipe) -> Iterator[Family]:
    """The knobs of a recipe: those that leave what is learnt alone come first."""
    config = recipe.training
    batch, pair_batch = config.batch, config.pair_batch
    parts = [n for n in range(config.accumulate + 1, batch + 1) if batch % n == 0 and (pair_batch or batch) % n == 0]
    yield Family("memory", f"{SAME}, in more and smaller parts", [((f"training.accumulate={n}",), 1) for n in parts])
    ranks = [n for n in powers(2, MOST_RANKS) if batch % (n * config.accumulate) == 0]
    yield Family("memory", f"{SAME}, cut among processes", [(("training.strategy=fsdp",), n) for n in ranks])
    if config.precision == "fp32":
        yield Family("memory", "coarser arithmetic", [(("training.precision=bf16",), 1)])
    if config.ema is not None:
        for resource in ("memory", "disk"):
            yield Family(resource, "no average, the last weights are exported", [(("training.ema=null",), 1)])
    yield Family("memory", OTHER, [(smaller_batch(recipe, n), 1) for n in halves(batch)])
    yield Family("memory", "fewer samples at once", [
        ((f"evaluation.batch={n}",), 1) for n in halves(recipe.evaluation.batch)
    ])  # fmt: skip
    if config.checkpoint.keep > 1:
        yield Family("disk", "one checkpoint is kept", [(("training.checkpoint.keep=1",), 1)])
    if isinstance(recipe, DistillRecipe) and recipe.pairs is not None:
        yield Family("memory", "fewer pairs at once", [((f"pairs.tile={n}",), 1) for n in halves(recipe.pairs.tile)])
        if recipe.pairs.dtype != "float16":
            yield Family("disk", "pairs are rounded", [(("pairs.dtype=float16",), 1)])
        yield Family("disk", OTHER, [((f"pairs.count={n}",), 1) for n in halves(recipe.pairs.count)])


def smaller_batch(recipe: DistillRecipe | TeachRecipe, batch: int) -> tuple[str, ...]:
    """Both batches made smaller alike."""
    pair_batch = recipe.training.pair_batch
    pairs = (
        () if pair_batch is None else (f"training.pair_batch={max(pair_batch * batch // recipe.training.batch, 1)}",)
    )
    return (f"training.batch={batch}", *pairs)


def powers(first: int, last: int) -> list[int]:
    """first, 2 first, 4 first, ... up to last."""
    return [first] if 2 * first > last else [first, *powers(2 * first, last)]


def halves(number: int) -> list[int]:
    """Half of it, a quarter, ... down to 1."""
    return [] if number < 2 else [number // 2, *halves(number // 2)]
