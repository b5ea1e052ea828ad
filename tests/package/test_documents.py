"""The documents name things that exist and say of each file what the file says of itself."""

import re
from importlib import import_module

from source_tree import SOURCE, read, tree_page


def test_the_page_of_the_tree_says_what_the_files_say() -> None:
    assert read("docs/tree.md") == tree_page(), "run `python tests/package/source_tree.py`, which writes it anew"


def test_the_readme_is_read_in_ten_minutes() -> None:
    lines = read("README.md").splitlines()
    assert len(lines) <= 150
    assert not [line for line in lines if len(line) > 100 and not line.startswith(("|", "!", "    network, process="))]


def notation_rows() -> list[str]:
    rows = [line for line in read("docs/notation.md").splitlines() if line.startswith("|")]
    names = [re.findall(r"`([^`]+)`", row.split("|")[2]) for row in rows]
    return sorted({name for row in names for name in row})


def exists(name: str) -> bool:
    """`module:Class.attribute` is looked up; a bare name must occur in the source as a whole word."""
    if ":" not in name:
        word = re.compile(rf"\b{re.escape(name)}\b")
        return any(word.search(path.read_text()) for path in SOURCE.rglob("*.py"))
    module, _, attributes = name.partition(":")
    place = import_module(f"unistep.{module}")
    for attribute in attributes.split("."):
        fields = getattr(place, "model_fields", {}) | getattr(place, "__dataclass_fields__", {})
        if not hasattr(place, attribute) and attribute not in fields:
            return False
        place = getattr(place, attribute, None)
    return True


def test_each_name_of_the_notation_exists() -> None:
    rows = notation_rows()
    assert len(rows) > 20
    assert not [name for name in rows if not exists(name)]
