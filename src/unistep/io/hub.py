"""Repositories of the Hugging Face Hub: their names, the line that announces a download, and rows of their datasets."""

import inspect
import re
import sys
from pathlib import Path
from typing import Any

from unistep.errors import UserError, one_line
from unistep.io.optional import import_optional

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def is_hub_id(name: str) -> bool:
    """Whether a name reads as OWNER/NAME and is no path: a folder OWNER here makes it a path with a mistake."""
    return bool(HUB_ID.fullmatch(name)) and not Path(name.partition("/")[0]).exists()


def announce_download(repository: str) -> None:
    """Prints on stderr that the hub is contacted: nothing else that unistep does leaves the machine."""
    print(f"contacting the Hugging Face Hub for {repository}", file=sys.stderr, flush=True)


def load_rows(name: str, subset: str | None, split: str, field: str) -> Any:
    """A split of a dataset, as the library `datasets` gives it: columns by name, `features`, `select`.

    Args:
        name: OWNER/NAME on the hub, or a folder that the library reads. Scripts in it are not executed.
        subset: one of its configurations; None = the only one, or the default.
        split: of the dataset.
        field: what in the recipe names it, for messages.

    Raises:
        UserError: without the library, or for a dataset, subset or split that is absent, gated or out of reach.
    """
    load: Any = import_optional("datasets", "datasets").load_dataset
    # releases before 4 take the switch, later ones execute no scripts and refuse it
    switch = {"trust_remote_code": False} if "trust_remote_code" in inspect.signature(load).parameters else {}
    if not Path(name).exists():
        announce_download(name)
    try:
        return load(name, subset, split=split, **switch)
    except Exception as error:  # whatever the hub's client and its transport raise
        raise UserError(
            f"{field}: cannot read the dataset {name}, split {split}: {one_line(error)} (without a network only what "
            "was fetched before is read)"
        ) from error
