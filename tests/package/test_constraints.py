"""constraints.txt pins all that `make test` and `make check` install."""

import re
from importlib.metadata import PackageNotFoundError, requires

from packaging.requirements import Requirement
from source_tree import read


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned() -> dict[str, str]:
    lines = [line.split("==") for line in read("constraints.txt").splitlines() if not line.startswith("#")]
    return {normal(name): version for name, version in lines}


def needed(root: Requirement) -> set[str]:
    """Everything that a requirement brings along here; torch's build, installed first, brings libraries of its own."""
    found: set[tuple[str, str]] = set()
    waiting = [(root, extra) for extra in root.extras or {""}]
    while waiting:
        requirement, extra = waiting.pop()
        key = (normal(requirement.name), extra)
        if key in found:
            continue
        found.add(key)
        try:
            lines = [] if requirement.name == "torch" else requires(requirement.name) or []
        except PackageNotFoundError:  # an extra that is not installed here
            continue
        for inner in map(Requirement, lines):
            if inner.marker is None or inner.marker.evaluate({"extra": extra}):
                waiting += [(inner, wanted) for wanted in inner.extras | {""}]
    return {name for name, _ in found}


def test_everything_installed_is_pinned() -> None:
    assert needed(Requirement("unistep[dev]")) - pinned().keys() == {"unistep"}
    assert needed(Requirement("unistep")) - pinned().keys() == {"unistep"}


def test_each_line_is_a_pin() -> None:
    assert len(pinned()) > 80 and all(re.fullmatch(r"\d[\w.]*", version) for version in pinned().values())
