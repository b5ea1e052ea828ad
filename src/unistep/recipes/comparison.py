"""What a recipe of `unistep compare` may say: one teacher, one judge, one budget, and the entries that differ."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from unistep.recipes.schema import Name
from unistep.recipes.sections import Section, SolverName

RESERVED = ("shared", "solvers", "previews", "generator", "judge", "checkpoints", "teacher", "features", "samples")
EntryName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$")]


class Budget(Section):
    """What each entry may spend on its pairs and its training, the same for all: network evaluations or wall time."""

    evaluations: int | None = Field(default=None, ge=1)
    minutes: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def check(self) -> "Budget":
        """Exactly one of the two."""
        if (self.evaluations is None) == (self.minutes is None):
            raise ValueError(
                f"evaluations, minutes: found {self.evaluations} and {self.minutes}, expected exactly one of the two"
            )
        return self


class EntryConfig(Section):
    """One entry: a distill recipe (`{base}` stands for the comparison's base) and what is set on top of it."""

    recipe: str = "{base}"
    about: str = ""
    set: dict[str, Any] = {}

    @model_validator(mode="after")
    def check(self) -> "EntryConfig":
        """All entries are judged alike."""
        if "evaluation" in self.set:
            raise ValueError(
                "set.evaluation: found settings, expected none: all are judged alike; use set above entries"
            )
        return self


class SolverRows(Section):
    """The teacher itself under a solver, a row for each number of its denoiser's evaluations; guidance doubles them."""

    name: SolverName
    evaluations: tuple[int, ...] = Field(min_length=1)
    options: dict[str, Any] = {}

    @model_validator(mode="after")
    def check(self) -> "SolverRows":
        """Each number once, and no number of steps beside it."""
        if "num_steps" in self.options:
            raise ValueError("options.num_steps: found a number, expected none: `evaluations` says how many")
        if len({*self.evaluations}) < len(self.evaluations):
            raise ValueError(f"evaluations: found {list(self.evaluations)}, expected each number once")
        return self


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
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0, 1, 2), min_length=1)
    set: dict[str, Any] = {}
    entries: dict[EntryName, EntryConfig] = Field(min_length=1)
    solvers: tuple[SolverRows, ...] = ()

    @model_validator(mode="after")
    def check(self) -> "CompareRecipe":
        """Names are folders, and seeds are told apart."""
        taken = sorted({name.lower() for name in self.entries} & {*RESERVED})
        if taken:
            raise ValueError(f"entries.{taken[0]}: found a name that the folder needs for itself, expected another")
        if len({*self.seeds}) < len(self.seeds):
            raise ValueError(f"seeds: found {list(self.seeds)}, expected each seed once")
        for name in ("evaluation", "teacher"):
            if not isinstance(self.set.get(name, {}), dict):
                raise ValueError(f"set.{name}: found {self.set[name]!r}, expected settings by name, or no such line")
        return self
