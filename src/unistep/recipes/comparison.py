"""What a recipe of `unistep compare` may say: one teacher, one judge, one budget, and the entries that differ."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from unistep.recipes.schema import Name
from unistep.recipes.sections import Section, SolverName

RESERVED = ("shared", "solvers", "previews", "generator", "judge", "checkpoints", "teacher", "features", "samples")
EntryName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$")]


class Budget(Section):
    """What each entry may spend on its pairs and its training, the same for all: network evaluations or wall time."""

    evaluations: int | None = Field(default=None, ge=1, le=10**12)
    minutes: float | None = Field(default=None, gt=0)

    def mistakes(self) -> Iterator[str]:
        """Both budgets or none."""
        if (self.evaluations is None) == (self.minutes is None):
            yield (
                f"evaluations, minutes: found {self.evaluations} and {self.minutes}, expected exactly one of the two; "
                "set the other to null"
            )


class EntryConfig(Section):
    """One entry: a distill recipe (`{base}` stands for the comparison's base) and what is set on top of it."""

    recipe: str = "{base}"
    about: str = ""
    set: dict[str, Any] = {}

    def mistakes(self) -> Iterator[str]:
        """An evaluation of its own, where all entries are judged alike."""
        if "evaluation" in self.set:
            yield "set.evaluation: found settings, expected none: all are judged alike; use set above entries"


class SolverRows(Section):
    """The teacher itself under a solver, a row for each number of its denoiser's evaluations; guidance doubles them."""

    name: SolverName
    evaluations: tuple[Annotated[int, Field(le=10_000)], ...] = Field(min_length=1)
    options: dict[str, Any] = {}

    def mistakes(self) -> Iterator[str]:
        """A number given twice, or a number of steps beside it."""
        if "num_steps" in self.options:
            yield "options.num_steps: found a number, expected none: `evaluations` says how many"
        if len({*self.evaluations}) < len(self.evaluations):
            yield f"evaluations: found {list(self.evaluations)}, expected each number once"


class CompareRecipe(Section):
    """A recipe of `unistep compare`.

    `base` is a distill recipe, whose teacher, judge and settings all entries share; `set` changes them for all. The
    length of each training follows from `budget`: `training.steps` of an entry only says what its milestones
    (`dm_from_step`) are written for, which keep their share of the training.
    """

    name: Name
    kind: Literal["compare"]
    about: str = ""
    base: str
    budget: Budget
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(default=(0, 1, 2), min_length=1)
    set: dict[str, Any] = {}
    entries: dict[EntryName, EntryConfig] = Field(min_length=1)
    solvers: tuple[SolverRows, ...] = ()

    def mistakes(self) -> Iterator[str]:
        """Entries that cannot be folders, seeds given twice, and sections that are none."""
        for name in sorted({name.lower() for name in self.entries} & {*RESERVED}):
            yield f"entries.{name}: found a name that the folder needs for itself, expected another"
        if len({*self.seeds}) < len(self.seeds):
            yield f"seeds: found {list(self.seeds)}, expected each seed once"
        for name in ("evaluation", "teacher"):
            if not isinstance(self.set.get(name, {}), dict):
                yield f"set.{name}: found {self.set[name]!r}, expected settings by name, or no such line"
