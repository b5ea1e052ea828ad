"""Measures the structure of the source tree: sizes, names, import cycles, and call depths taken at run time.

Usage: python tools/measure_structure.py [--calls] [SOURCE]

SOURCE is a folder `src/unistep`, by default this checkout's; `--calls` also runs the shortened recipe `gaussians` and
counts the frames between a verb and what it is about. Prints one Markdown table.
"""

import argparse
import ast
import re
import statistics
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CARRIED = {"recipe", "teacher", "folder", "device", "say", "talk", "log", "quiet"}  # what a run context would hold
PREPOSITIONS = r"_?(?:at|in|on|with|from|by|as|for|under|over|into|to|of|between|without|above|below|beside)_"
PARTICIPLE = r"_?[a-z]+(?:ed|ught|ept|eld|old|een|aken|ade)"
Function = ast.FunctionDef | ast.AsyncFunctionDef


def code_lines(function: Function) -> int:
    """Lines of a function without its docstring."""
    length = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        length -= (first.end_lineno or first.lineno) - first.lineno + 1
    return length


def percentile(values: list[int], share: float) -> int:
    """The value below which a share of the sorted values lies."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def imports(path: str, tree: ast.Module, known: set[str]) -> Iterator[str]:
    """The package's own modules that a module imports when it is loaded."""
    for node in tree.body:
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from (name for name in names if name in known and name != path)


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other (Tarjan's strongly connected components of more than one module)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = []
            while not group or group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    sys.setrecursionlimit(10_000)
    for node in graph:
        if node not in index:
            visit(node)
    return found


def measure_source(source: Path) -> dict[str, Any]:
    """The figures that reading the files gives."""
    files = {path.relative_to(source).as_posix(): path.read_text() for path in sorted(source.rglob("*.py"))}
    trees = {path: ast.parse(text) for path, text in files.items()}
    functions = [(path, n) for path, tree in trees.items() for n in ast.walk(tree) if isinstance(n, Function)]
    lengths, sizes = [code_lines(n) for _, n in functions], [text.count("\n") for text in files.values()]
    folder, most = Counter(path.rpartition("/")[0] or "." for path in files).most_common(1)[0]
    modules = {
        f"unistep.{path.removesuffix('.py').removesuffix('/__init__').replace('/', '.')}": path for path in files
    }
    graph = {name: set(imports(name, trees[path], {*modules})) for name, path in modules.items()}
    names = sorted({n.name for _, n in functions if not n.name.startswith("__")})
    arguments = [{a.arg for a in [*n.args.args, *n.args.kwonlyargs]} for _, n in functions]
    return {
        "files": len(files),
        "lines": sum(sizes),
        "functions": len(functions),
        "lines of a function, median / 90th percentile": f"{statistics.median(lengths):g} / {percentile(lengths, 0.9)}",
        "lines of a file, median / 90th percentile": f"{statistics.median(sizes):g} / {percentile(sizes, 0.9)}",
        "files in the largest folder": f"{most} ({folder})",
        "import cycles": len(cycles(graph)),
        "function names with _of": sum(bool(re.search(r"_of(_|$)", name)) for name in names),
        "function names that are bare participles": sum(bool(re.fullmatch(PARTICIPLE, name)) for name in names),
        "function names that begin with a preposition": sum(bool(re.match(PREPOSITIONS, name)) for name in names),
        "functions that pass three or more of a run's parts": sum(len(found & CARRIED) >= 3 for found in arguments),
    }


def frames_to(module: str, name: str, call: Callable[[], object]) -> str:
    """Frames and files of the package on the stack when a function is first reached from a call."""
    import unistep

    package, stacks = str(Path(unistep.__file__).parent), list[list[str]]()
    home = import_module(module)
    whole = getattr(home, name)

    def record(*args: Any, **kwargs: Any) -> Any:
        if not stacks:
            stacks.append([f.filename for f in traceback.extract_stack() if f.filename.startswith(package)])
        return whole(*args, **kwargs)

    holders = [m for n, m in list(sys.modules.items()) if n.startswith("unistep") and getattr(m, name, None) is whole]
    for holder in holders:
        setattr(holder, name, record)
    try:
        call()
    finally:
        for holder in holders:
            setattr(holder, name, whole)
    return f"{len(stacks[0])} frames, {len({*stacks[0]})} files" if stacks else "not reached"


def measure_calls() -> dict[str, str]:
    """Frames and files of the package from a command to what it is about, on the shortened recipe `gaussians`."""
    from unistep.cli import app

    short = [
        "training.steps=3", "pairs.count=256", "pairs.tile=256", "fit.training.steps=20", "fit.max_error=9",
        "evaluation.samples=2560",
        "training.evaluate_every=null", "training.preview_every=null", "teacher.certify=false",
    ]  # fmt: skip
    overrides = [part for item in short for part in ("--set", item)]

    def run(*arguments: str) -> Callable[[], object]:
        return lambda: app([*arguments, "--quiet"], standalone_mode=False)

    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/run"
        return {
            "distill to distribution_matching_gradient": frames_to(
                "unistep.losses.distribution_matching", "distribution_matching_gradient",
                run("distill", "gaussians", "--out", out, *overrides),
            ),
            "evaluate to the energy distance": frames_to(
                "unistep.evaluation.metrics.points", "energy_distance", run("evaluate", out)
            ),
        }  # fmt: skip


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=Path, default=ROOT / "src" / "unistep", metavar="SOURCE")
    parser.add_argument("--calls", action="store_true", help="count the frames of real calls, too")
    arguments = parser.parse_args()
    figures = measure_source(arguments.source) | (measure_calls() if arguments.calls else {})
    print("| measure | value |\n|---|---|")
    print("\n".join(f"| {name} | {value} |" for name, value in figures.items()))


if __name__ == "__main__":
    main()
