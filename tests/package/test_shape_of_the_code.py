"""Files and functions stay small, documented and free of what the house rules forbid."""

import ast
import re
import statistics

from source_tree import ROOT, code_length, functions, modules, read

LONGEST_FILE, LONGEST_FUNCTION = 300, 60
LONGER = {"networks/unet.py": 450}
LEFTOVER = re.compile(r"nan_to_num|\bTODO\b|\bFIXME\b|\bXXX\b|NotImplementedError|from __future__ import annot")


def test_files_stay_short() -> None:
    lengths = {path: len(read(f"src/unistep/{path}").splitlines()) for path in modules()}
    assert not {path: n for path, n in lengths.items() if n > LONGER.get(path, LONGEST_FILE)}


def test_functions_stay_short() -> None:
    found = [
        f"{path}:{function.lineno} {function.name} has {(function.end_lineno or 0) - function.lineno + 1} lines"
        for path, tree in modules().items()
        for function in functions(tree)
        if (function.end_lineno or 0) - function.lineno + 1 > LONGEST_FUNCTION
    ]
    assert not [line for line in found if "__init__ has" not in line]


def test_the_median_function_fits_a_glance() -> None:
    lengths = sorted(code_length(function) for tree in modules().values() for function in functions(tree))
    assert statistics.median(lengths) <= 10
    assert lengths[int(0.9 * len(lengths))] <= 40


def test_each_module_says_what_it_is_in_one_sentence() -> None:
    lines = {path: (ast.get_docstring(tree) or "").split("\n")[0] for path, tree in modules().items()}
    assert not {path: line for path, line in lines.items() if not line.endswith((".", ":"))}


def test_source_is_ascii() -> None:
    assert not [path for path in modules() if not read(f"src/unistep/{path}").isascii()]


def test_source_holds_no_leftovers() -> None:
    found = {path: LEFTOVER.search(read(f"src/unistep/{path}")) for path in modules()}
    assert not {path: match[0] for path, match in found.items() if match}


WRITERS = {"io/atomic.py", "training/checkpoint.py", "teachers/checkpoint.py"}  # of a file, of whole folders
WRITES = re.compile(r"os\.(replace|rename|link)\(|\.write_(text|bytes)\(|open\([^)]*\"[wx]b?\"")


def test_files_are_written_in_one_place() -> None:
    assert {path for path in modules() if WRITES.search(read(f"src/unistep/{path}"))} == WRITERS


def test_no_file_is_called_utils() -> None:
    assert not [path for path in modules() if path.endswith(("utils.py", "helpers.py", "common.py"))]


def test_test_files_have_unique_names() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
