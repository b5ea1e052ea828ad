"""The smoke form of a recipe, `NAME:smoke`: its `smoke` section laid over the rest, seconds in place of hours."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unistep.errors import UserError

SUFFIX = ":smoke"


def without_form(recipe: str | Path) -> str:
    """The recipe's name or path alone."""
    return str(recipe).removesuffix(SUFFIX)


def smoke_forms(recipes: Mapping[str, str]) -> list[str]:
    """Those names of recipes, given with their texts, that have a smoke form: of their own or of what they extend.

    Lines are looked for; nothing is parsed.
    """

    def has(name: str) -> bool:
        lines = recipes.get(name, "").splitlines()
        bases = [line.partition(":")[2].strip() for line in lines if line.startswith("extends:")]
        return any(line.startswith("smoke:") for line in lines) or any(has(base) for base in bases)

    return [name for name in recipes if has(name)]


def is_smoke(recipe: str | Path) -> bool:
    """Whether the smoke form is asked for."""
    return str(recipe).endswith(SUFFIX)


def smoke_settings(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """What the smoke form lays over a recipe's plain values: its `smoke` section, with a name of its own.

    Raises:
        UserError: for a recipe without such a section.
    """
    section = values.get("smoke")
    if not isinstance(section, dict):
        raise UserError(f"{source}: smoke: found {section!r}, expected a section: this recipe has no smoke form")
    name = values.get("name", Path(source).stem)
    return {"name": f"{name}-smoke", "about": f"smoke test of {name}: no figure means anything", **section}
