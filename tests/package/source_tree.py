"""What the package's tests ask the source tree: its files, their imports, functions and first lines."""

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
