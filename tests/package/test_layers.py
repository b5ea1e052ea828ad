"""Imports run one way, and what must stay light stays light."""

import ast

import pytest
from source_tree import modules

LAYERS = (
    ("errors", "types", "assets"),
    ("process",),
    ("prediction", "weighting"),
    ("guidance",),
    ("samplers",),
    ("networks",),
    ("losses",),
    ("teachers",),
    ("methods",),
    ("pairs", "data"),
    ("training",),
    ("evaluation",),
    ("reports",),
    ("recipes",),
    ("api",),
    ("cli",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
MATHEMATICS = ("process", "prediction", "weighting", "guidance", "samplers", "losses")
LAZY = {"matplotlib", "pyarrow", "sklearn", "tensorboard", "diffusers", "piq", "torchvision", "scipy"}


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


@pytest.mark.parametrize("path", [path for path in modules() if layer(path) not in ("__init__", "__main__")])
def test_imports_go_down_the_list_only(path: str) -> None:
    own = layer(path)
    for name in all_imports(modules()[path]):
        parts = name.split(".")
        if parts[0] == "unistep" and len(parts) > 1 and parts[1] != own:
            assert RANK[parts[1]] <= RANK[own], f"{path} imports {name}, which stands above it"


def test_every_file_has_a_layer() -> None:
    assert {layer(path) for path in modules()} - {"__init__", "__main__"} <= RANK.keys()


@pytest.mark.parametrize("path", [path for path in modules() if layer(path) in MATHEMATICS])
def test_the_mathematics_does_no_logging_and_knows_no_ranks(path: str) -> None:
    forbidden = {"logging", "pathlib", "json", "torch.distributed", "rich", "typer"}
    assert not forbidden & set(all_imports(modules()[path]))


@pytest.mark.parametrize("path", modules())
def test_heavy_and_optional_libraries_are_imported_where_they_are_used(path: str) -> None:
    assert not {name.split(".")[0] for name in top_level_imports(modules()[path])} & LAZY


@pytest.mark.parametrize("path", [path for path in modules() if layer(path) in ("cli", "__init__", "__main__")])
def test_the_command_line_imports_torch_only_inside_verbs(path: str) -> None:
    light = {"unistep.cli", "unistep.recipes", "unistep.errors", "typer", "importlib", "typing"}
    for name in top_level_imports(modules()[path]):
        assert not name.startswith(("torch", "unistep.api")), f"{path} imports {name} when it starts"
        if name.startswith("unistep"):
            assert any(name.startswith(prefix) for prefix in light), name
