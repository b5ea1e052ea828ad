"""The certificate of a teacher: what was checked, the figures, the limits; kept as JSON in the run."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from unistep.errors import UserError
from unistep.io.atomic import atomic_write
from unistep.io.text_files import read_json

FORMAT = "unistep-certificate/1"


def nan_as_infinity(value: float) -> float:
    """Returns the value, infinity for NaN: as the key of a maximum it makes NaN the largest, which fails a limit."""
    return math.inf if math.isnan(value) else value


@dataclass(frozen=True, kw_only=True)
class Check:
    """One question and its answer.

    Attributes:
        name: what was asked, unique within a certificate.
        passed: the answer.
        figure: the number it rests on, None where it is yes or no.
        limit: what the number must keep to, readable.
        words: what was found; for a failure also what is likely wrong.
    """

    name: str
    passed: bool
    words: str
    figure: float | None = None
    limit: str = ""


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """All checks of one teacher.

    Attributes:
        teacher: its sha256.
        source: where it came from.
        checks: in the order they were made; those that do not apply to this teacher are left out.
        samples: how many of its own samples the figures are of.
        versions: of what computed them.
    """

    teacher: str
    source: str
    checks: tuple[Check, ...]
    samples: int
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that were not passed."""
        return tuple(check for check in self.checks if not check.passed)

    def require(self) -> None:
        """Stops here unless every check was passed.

        Raises:
            UserError: the first failed check in words, and the names of the others.
        """
        if self.failed:
            first, *others = self.failed
            more = f" (failed too: {', '.join(check.name for check in others)})" if others else ""
            raise UserError(f"teacher {self.source}: {first.name}: {first.words}{more}")

    def save(self, path: Path) -> None:
        """Writes JSON, whole or not at all."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=2)
        atomic_write(path, (text + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> "Certificate":
        """What `save` wrote.

        Raises:
            UserError: for a missing or foreign file.
        """
        try:
            found = read_json(path, "delete it")
            if found.pop("format") != FORMAT:
                raise ValueError(f"expected format {FORMAT}")
            return cls(checks=tuple(Check(**check) for check in found.pop("checks")), **found)
        except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
            raise UserError(f"{path}: found no readable certificate ({error}); delete it and run again") from error
