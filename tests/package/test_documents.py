"""README and notation name things that exist and say of each file what the file says of itself."""

import ast
import re
from importlib import import_module

import pytest
from source_tree import SOURCE, modules, read

TREE_LINE = re.compile(r"^( *)([\w/]+(?:\.py|/)) {2,}(\S.*)$")


def tree_lines() -> list[tuple[str, str]]:
    """(path below src/unistep, what the README says of it)."""
    block = read("README.md").split("```text\nsrc/unistep/\n")[1].split("```")[0]
    found, folder = [], ""
    for line in block.splitlines():
        match = TREE_LINE.match(line)
        assert match, f"README tree: {line!r} is not `name  what it is`"
        indent, name, text = match.groups()
        folder = folder if len(indent) > 2 else ""
        found.append((folder + name, text))
        folder = name if name.endswith("/") else folder
    return found


def first_line(tree: ast.Module) -> str:
    return (ast.get_docstring(tree) or "").splitlines()[0]


def test_the_tree_says_what_the_files_say() -> None:
    for path, text in tree_lines():
        tree = modules()[f"{path}__init__.py" if path.endswith("/") else path]
        assert first_line(tree) == text, f"{path}: README and module disagree"


def test_the_tree_is_complete() -> None:
    listed = {path for path, _ in tree_lines()}
    expected = {path for path in modules() if not path.endswith("__init__.py") and not path.startswith("assets/")}
    expected |= {path.removesuffix("__init__.py") for path in modules() if path.endswith("/__init__.py")}
    assert listed == expected - {"assets/"}


def notation_rows() -> list[str]:
    rows = [line for line in read("docs/notation.md").splitlines() if line.startswith("|")]
    names = [re.findall(r"`([^`]+)`", row.split("|")[2]) for row in rows]
    return sorted({name for row in names for name in row})


@pytest.mark.parametrize("name", notation_rows())
def test_each_name_of_the_notation_exists(name: str) -> None:
    """`module:Class.attribute` is looked up; a bare name must occur in the source as a whole word."""
    if ":" not in name:
        word = re.compile(rf"\b{re.escape(name)}\b")
        assert any(word.search(path.read_text()) for path in SOURCE.rglob("*.py")), name
        return
    module, _, attributes = name.partition(":")
    place = import_module(f"unistep.{module}")
    for attribute in attributes.split("."):
        fields = getattr(place, "model_fields", {}) | getattr(place, "__dataclass_fields__", {})
        assert hasattr(place, attribute) or attribute in fields, name
        place = getattr(place, attribute, None)


def test_python_blocks_of_the_readme_compile() -> None:
    blocks = re.findall(r"```python\n(.*?)```", read("README.md"), re.S)
    assert blocks
    for block in blocks:
        compile(block, "README.md", "exec")
