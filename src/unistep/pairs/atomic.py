"""What a killed writer of an atomic file left behind."""

import os
from collections.abc import Collection
from pathlib import Path

from unistep.atomic import atomic_write as atomic_write


def sweep(folder: Path, names: Collection[str]) -> None:
    """Removes what killed writers of these files left; for the only writer of them, before it begins."""
    for entry in list(os.scandir(folder)):
        if entry.name.startswith(".") and entry.name.endswith(".tmp") and entry.name[1:].rsplit(".", 2)[0] in names:
            os.unlink(entry.path)
