"""What a run on the ring of Gaussians says of itself."""

import json
from pathlib import Path
from typing import NamedTuple


class Outcome(NamedTuple):
    """The generator's figures (None where nothing was measured) and the names of the alarms, in the order they rang."""

    modes: float | None
    energy: float | None
    alarms: list[str]


def outcome(run: Path) -> Outcome:
    """Reads a run's folder."""
    alarms = [alarm["name"] for alarm in json.loads((run / "health.json").read_text())["alarms"]]
    if not (run / "evaluation.json").is_file():
        return Outcome(None, None, alarms)
    rows = json.loads((run / "evaluation.json").read_text())["rows"]
    found = next(row["figures"] for row in rows if row["role"] == "student")
    return Outcome(found["modes"], found["energy"], alarms)
