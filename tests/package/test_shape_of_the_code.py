"""Files and functions stay small, documented and free of what the house rules forbid."""

import ast
import re
import statistics

import pytest
from source_tree import ROOT, code_length, functions, modules, read

LONGEST_FILE = {"networks/unet.py": 450}


@pytest.mark.parametrize("path", modules())
def test_files_stay_under_300_lines(path: str) -> None:
    assert len(read(f"src/unistep/{path}").splitlines()) <= LONGEST_FILE.get(path, 300)


@pytest.mark.parametrize("path", modules())
def test_functions_stay_under_60_lines(path: str) -> None:
    for function in functions(modules()[path]):
        length = (function.end_lineno or 0) - function.lineno + 1
        assert length <= 60 or function.name == "__init__", f"{path}: {function.name} has {length} lines"


def test_the_median_function_fits_a_glance() -> None:
    lengths = sorted(code_length(function) for tree in modules().values() for function in functions(tree))
    assert statistics.median(lengths) <= 10
    assert lengths[int(0.9 * len(lengths))] <= 40


@pytest.mark.parametrize("path", modules())
def test_each_module_says_what_it_is_in_one_sentence(path: str) -> None:
    if path.startswith("assets/"):
        pytest.skip("a folder of data")
    docstring = ast.get_docstring(modules()[path])
    assert docstring, f"{path} has no docstring"
    assert docstring.splitlines()[0].endswith((".", ":")), f"{path}: the first line is no sentence"


@pytest.mark.parametrize("path", modules())
def test_source_is_ascii_and_holds_no_leftovers(path: str) -> None:
    text = read(f"src/unistep/{path}")
    assert text.isascii()
    leftover = re.search(
        r"nan_to_num|\bTODO\b|\bFIXME\b|\bXXX\b|NotImplementedError|from __future__ import annot", text
    )
    assert leftover is None, f"{path}: {leftover}"


def test_no_file_is_called_utils() -> None:
    assert not [path for path in modules() if path.endswith(("utils.py", "helpers.py", "common.py"))]


def test_test_files_have_unique_names() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
