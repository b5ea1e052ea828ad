"""Rows of a dataset of the hub, read by the `datasets` library (extra `datasets`)."""

from typing import Any

from unistep.errors import UserError, one_line
from unistep.optional import import_optional


def load_rows(name: str, subset: str | None, split: str, field: str) -> Any:
    """A split of a dataset, as the library gives it: columns by name, `features`, `select`.

    Args:
        name: OWNER/NAME on the hub, or a folder that the library reads.
        subset: one of its configurations; None = the only one, or the default.
        split: of the dataset.
        field: what in the recipe names it, for messages.

    Raises:
        UserError: without the library, or for a dataset, subset or split that is absent, gated or out of reach.
    """
    datasets = import_optional("datasets", "datasets")
    try:
        return datasets.load_dataset(name, subset, split=split)
    except Exception as error:  # whatever the hub's client and its transport raise
        raise UserError(
            f"{field}: cannot read the dataset {name}, split {split}: {one_line(error)} (without a network only what "
            "was fetched before is read)"
        ) from error
