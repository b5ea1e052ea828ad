"""The result of an evaluation: rows of figures with their sample counts and seeds, kept as JSON."""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from unistep.errors import UserError
from unistep.evaluation.throughput import Timing
from unistep.io.atomic import atomic_write
from unistep.io.text_files import read_json

FORMAT = "unistep-evaluation/1"
Role = Literal["floor", "teacher", "teacher_one_step", "student", "other"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model, or real images, as judged.

    Attributes:
        name: readable, unique within the evaluation.
        role: what it stands for in a comparison.
        figures: name -> number (`frechet`, `kid`, `kid_sd`, `precision`, ..., or `energy`, `modes`, ...).
        num_samples: how many samples the figures are of.
        first_seed: sample i was made of seed first_seed + i; None for real images.
        nfe: network evaluations per sample; None for real images.
        timing: latency and throughput, if measured.
        cached: the features came from a file.
    """

    name: str
    role: Role
    figures: Mapping[str, float]
    num_samples: int
    first_seed: int | None = None
    nfe: int | None = None
    timing: Timing | None = None
    cached: bool = False


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Rows judged alike.

    Attributes:
        kind: what was judged; points have other figures than images.
        rows: in the order of the table.
        reference: what stands for real samples, in words.
        reference_sha256: of the file that holds it; empty where there is none.
        judge: sha256 of the judge; empty for points.
        judge_title: its readable name.
        distance: what the Frechet distance in the judge's features is called, `FID` or `FD`.
        alignment: sha256 of what holds samples against their prompts; empty where nothing does.
        alignment_title: its readable name.
        teacher: sha256 of the teacher; empty if not known.
        notes: sentences to be read with the figures, on metrics that were left out for example.
        settings: metric -> what its figures depend on (seeds, neighbours, subset sizes).
        versions: of what computed it.
    """

    kind: Literal["images", "points"]
    rows: tuple[Row, ...]
    reference: str
    reference_sha256: str = ""
    judge: str = ""
    judge_title: str = ""
    distance: str = "FD"
    alignment: str = ""
    alignment_title: str = ""
    teacher: str = ""
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def row(self, role: Role) -> Row | None:
        """The first row of a role, or None."""
        return next((row for row in self.rows if row.role == role), None)

    def save(self, path: Path) -> None:
        """Writes JSON, whole or not at all."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=2, sort_keys=True, allow_nan=False)
        try:
            atomic_write(path, f"{text}\n".encode())
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}); expected a writable folder") from error

    @classmethod
    def load(cls, path: Path) -> "Evaluation":
        """What `save` wrote.

        Raises:
            UserError: for a missing or foreign file.
        """
        try:
            found = read_json(path, "evaluate again")
        except OSError as error:
            raise UserError(f"{path}: found no evaluation, run `unistep evaluate` first") from error
        if found.pop("format", None) != FORMAT:
            raise UserError(f"{path}: found no evaluation of format {FORMAT}; evaluate again with this version")
        try:
            rows = tuple(row_from_json(row) for row in found.pop("rows"))
            return cls(rows=rows, notes=tuple(found.pop("notes", ())), **found)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: found an incomplete evaluation ({error}); evaluate again") from error


def row_from_json(found: dict[str, Any]) -> Row:
    """A row from the plain values that `save` wrote."""
    timing = found.pop("timing")
    return Row(timing=None if timing is None else Timing(**timing), **found)


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    from importlib.metadata import version

    import unistep

    found = {name: version(name) for name in ("torch", "numpy")}
    return {"unistep": unistep.__version__, "python": platform.python_version(), **found}
