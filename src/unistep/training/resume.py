"""Whether a checkpoint belongs to the recipe that wants to go on from it."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from unistep.errors import UserError
from unistep.training.random import VERSION

UNLOCKED = (
    "device", "strategy", "accumulate", "log_every", "preview_every", "evaluate_every", "gradient_checkpointing",
    "checkpoint", "compile", "pairs.path", "generator.weights", "fit.max_error", "teacher.certify",
)  # fmt: skip
"""Settings that may change between two parts of a run: they do not change what is learnt."""


def flatten(recipe: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as `a.b.c` -> value; lists are values."""
    flat: dict[str, Any] = {}
    for key, value in recipe.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def is_free(key: str) -> bool:
    """Whether a flat key names a free setting, in whichever `training` section it stands (`fit.training.log_every`)."""
    own = f".{key}".rpartition(".training.")[2].removeprefix(".")
    return any(own == free or own.startswith(free + ".") for free in UNLOCKED)


def is_within(key: str, names: Iterable[str]) -> bool:
    """Whether a flat key is one of the names, or lies in a section of that name."""
    return any(f"{key}.".startswith(f"{name}.") for name in names)


def locked_settings(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The flat settings that a resumed run must share, as JSON would read them back."""
    return json.loads(json.dumps({key: value for key, value in flatten(recipe).items() if not is_free(key)}))


def require_same_recipe(saved: Mapping[str, Any], current: Mapping[str, Any], where: str) -> None:
    """Refuses to go on with a changed recipe.

    Args:
        saved: `locked_settings` of the recipe that wrote the checkpoint.
        current: `locked_settings` of the present one.
        where: the checkpoint, for the message.

    Raises:
        UserError: naming the first setting that differs, in alphabetical order.
    """
    for key in sorted(saved.keys() | current.keys()):
        found, expected = (json.dumps(s[key]) if key in s else "nothing" for s in (current, saved))
        if found != expected:
            raise UserError(
                f"{key}: found {found}, expected {expected} as in {where}; "
                "restore the setting to go on, or choose another run folder (--out) to start anew"
            )


def require_same_randomness(saved: int, where: str) -> None:
    """Refuses to go on with other random numbers than those that an unfinished run began with.

    Args:
        saved: `training.random.VERSION` of the code that wrote the checkpoint.
        where: the checkpoint, for the message.

    Raises:
        UserError: if this code draws others.
    """
    if saved != VERSION:
        raise UserError(
            f"{where}: found random numbers of version {saved}, expected {VERSION}: this unistep draws others, so the "
            "unfinished run would not be the one that it began as; finish it with the unistep that wrote it, or choose "
            "another run folder (--out) to start anew"
        )


def require_whole_record(record: Mapping[str, Any], where: str) -> None:
    """Refuses a checkpoint whose record lacks what a run goes on from.

    Raises:
        UserError: naming what is missing.
    """
    for key, kind in (("step", int), ("recipe", Mapping), ("best", Mapping), ("health", Mapping)):
        if not isinstance(record.get(key), kind):
            raise UserError(
                f"{where}: found no {key} in the manifest's record, expected one; delete the folder to go on from the "
                "checkpoint before it"
            )
