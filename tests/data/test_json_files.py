"""JSON that cannot be read ends in one line with the file's name, whichever file it is."""

import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from unistep.errors import UserError
from unistep.evaluation.comparison import Comparison
from unistep.evaluation.result import Evaluation
from unistep.export.opened import exported_config
from unistep.io.text_files import parse_json, read_json
from unistep.pairs.manifest import read_manifest
from unistep.reports.run_files import read_run
from unistep.run.folder import read_record
from unistep.teacher_checks import Certificate
from unistep.teachers.checkpoint import read_checkpoint
from unistep.training.tracking import truncate_metrics

sys.path.insert(0, str(Path(__file__).parents[1] / "package"))
from source_tree import modules

DAMAGED = {
    "deep": b"[" * 100_000,
    "digits": b'{"step": ' + b"1" * 5_000 + b"}",
    "bytes": b'{"step": "\xff\xfe"}',
    "cut": b'{"step": ',
    "list": b"[]",
    "null": b"null",
    "empty": b"",
}
READERS: dict[str, Callable[[Path], object]] = {
    "run.json": read_record,
    "certificate.json": Certificate.load,
    "evaluation.json": Evaluation.load,
    "compare.json": Comparison.load,
    "sampling_contract.json": exported_config,
    "manifest.json": lambda file: read_manifest(file.parent),
    "config.json": lambda file: read_checkpoint(file.parent),
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_named_in_one_line(name: str, damage: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(DAMAGED[damage])
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=re.escape(str(file))) as caught:
        READERS[name](file)
    assert len(str(caught.value)) < 600


def test_an_object_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"a": [1, "ä"]}', encoding="utf-8")
    assert read_json(file, "") == {"a": [1, "ä"]} == parse_json(file.read_text("utf-8"), file, "")


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_report_leaves_out_what_cannot_be_read(damage: str, tmp_path: Path) -> None:
    for name in ("run.json", "health.json", "metrics.jsonl", "certificate.json", "evaluation.json"):
        (tmp_path / name).write_bytes(DAMAGED[damage])
    assert any("run.json" in sentence for sentence in read_run(tmp_path).missing)


def test_lines_of_metrics_that_are_none_are_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    lines = [
        b'{"step": 1}',
        b'{"step": "x"}',
        b'{"step": "\xff"}',
        b"[" * 100_000,
        b"3",
        b'{"step": 2}',
        b'{"step": 9}',
    ]
    file.write_bytes(b"\n".join(lines) + b"\n")
    truncate_metrics(file, 2)
    assert file.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_single_file_with_a_damaged_header_is_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "generator.safetensors"
    save_file({"a": torch.zeros(1)}, file, metadata={"config": "[" * 100_000})
    with pytest.raises(UserError, match=r"generator\.safetensors: no readable JSON \(nested too deeply\)"):
        read_checkpoint(file)


def test_nobody_else_reads_json_of_files() -> None:
    ours = {
        "io/text_files.py": 1,
        "export/fresh.py": 1,  # what our own process printed
        "export/fresh_diffusers.py": 1,  # runs without unistep, on a file that we just wrote
    }
    found = {
        path: calls for path, tree in modules().items() if (calls := sum(reads_text(node) for node in ast.walk(tree)))
    }
    assert found == ours


def reads_text(node: ast.AST) -> bool:
    """A call of json.load or json.loads on anything but a text that json.dumps just made, or a parameter."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    if ast.unparse(node.func) not in ("json.loads", "json.load"):
        return False
    return not ast.unparse(node.args[0]).startswith(("json.dumps", "options"))
