"""The result of a comparison: one row per entry, with a figure for each seed, and what each cost; kept as JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from unistep.errors import UserError
from unistep.io.atomic import atomic_write
from unistep.io.text_files import read_json

FORMAT = "unistep-comparison/1"
ComparedRole = Literal["floor", "teacher", "teacher_one_step", "solver", "entry"]


@dataclass(frozen=True, kw_only=True)
class ComparedRow:
    """One entry, or what it is compared with.

    Attributes:
        name: unique within the comparison.
        role: what it stands for.
        figures: name -> one number per seed (one in all for what is not trained).
        nfe: network evaluations per sample; None for real samples.
        latency_ms: of one sample, one number per seed.
        steps: length of the training.
        evaluations: network evaluations of pairs and training; None for what is not trained.
        minutes: pairs and training together, one number per seed.
        memory: bytes at the peak of a training step.
        runs: seed -> the run's folder, relative to the comparison's.
        about: one line.
        group: rows of one solver belong together; empty for others.
    """

    name: str
    role: ComparedRole
    figures: Mapping[str, list[float]]
    nfe: int | None = None
    latency_ms: list[float] = field(default_factory=list)
    steps: int | None = None
    evaluations: int | None = None
    minutes: list[float] = field(default_factory=list)
    memory: int | None = None
    runs: Mapping[str, str] = field(default_factory=dict)
    about: str = ""
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Rows judged alike, after the same budget.

    Attributes:
        name: of the recipe.
        about: its line about itself.
        kind: what was judged.
        distance: what the deciding distance is called.
        budget: in words.
        rows: in the order of the table.
        missing: name -> why an entry has no row.
        notes: sentences to be read with the figures.
        teacher, judge: sha256 of each; judge empty for points.
    """

    name: str
    about: str
    kind: Literal["images", "points"]
    distance: str
    budget: str
    rows: tuple[ComparedRow, ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    teacher: str = ""
    judge: str = ""

    def save(self, path: Path) -> None:
        """Writes JSON, whole or not at all."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=2, allow_nan=False)
        try:
            atomic_write(path, f"{text}\n".encode())
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}); expected a writable folder") from error

    @classmethod
    def load(cls, path: Path) -> "Comparison":
        """What `save` wrote.

        Raises:
            UserError: for a missing or foreign file.
        """
        try:
            found = read_json(path, "delete it")
            if found.pop("format", None) != FORMAT:
                raise ValueError(f"another format than {FORMAT}")
            rows = tuple(ComparedRow(**row) for row in found.pop("rows"))
            return cls(rows=rows, notes=tuple(found.pop("notes")), **found)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: no readable comparison ({error}); run `unistep compare` again") from error
