"""What the package's tests ask the source tree: its files, their imports, functions and first lines.

`python tests/package/source_tree.py` writes the tree into docs/tree.md.
"""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "unistep"


@cache
def modules() -> dict[str, ast.Module]:
    """Path below src/unistep -> parsed file."""
    files = sorted(SOURCE.rglob("*.py"))
    return {file.relative_to(SOURCE).as_posix(): ast.parse(file.read_text(), str(file)) for file in files}


def read(name: str) -> str:
    """A file of the repository; a package installed elsewhere does not carry it."""
    path = ROOT / name
    if not path.is_file():
        pytest.skip(f"{name} is not here")
    return path.read_text()


def functions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions and methods of a file."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def code_length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    length = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        length -= (first.end_lineno or first.lineno) - first.lineno + 1
    return length


def first_line(tree: ast.Module) -> str:
    """The sentence that says what a module is."""
    return (ast.get_docstring(tree) or "").split("\n")[0]


def rendered_tree() -> str:
    """The source tree: one line per folder and file with the first line of its docstring."""
    lines = ["src/unistep/"]
    paths = [path for path in modules() if path not in ("__init__.py", "__main__.py")]
    width = max(len(path.rpartition("/")[2]) for path in paths) + 4
    for path in sorted(paths, key=lambda path: (path.count("/") > 0, path.removesuffix("__init__.py"))):
        folder, _, name = path.rpartition("/")
        shown = f"  {folder}/" if name == "__init__.py" else "  " * (2 if folder else 1) + name
        lines.append(f"{shown:<{width}}  {first_line(modules()[path])}")
    return "\n".join(lines) + "\n"


def tree_page() -> str:
    """The page docs/tree.md."""
    return f"""# The source tree

Every file with the first line of its docstring; `python tests/package/source_tree.py` writes this page.

```text
{rendered_tree()}```
"""


if __name__ == "__main__":
    (ROOT / "docs" / "tree.md").write_text(tree_page())
