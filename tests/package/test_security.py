"""Nothing that comes with a model is executed, and no library reports its use."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel
from safetensors.torch import save_file
from source_tree import SOURCE, modules

import unistep
from unistep.errors import UserError
from unistep.evaluation.metrics.alignment import Clip
from unistep.io.hub import is_hub_id
from unistep.recipes.comparison import CompareRecipe
from unistep.recipes.schema import DistillRecipe, TeachRecipe
from unistep.teachers.diffusers.token_encoder import TokenEncoder

EXECUTING = {"AutoTokenizer", "AutoModel", "DiffusionPipeline", "kind"}  # classes whose folders may name code
OWN_MODELS = ("teachers/diffusers/tiny.py",)  # diffusers' models by class: no code can be named there


def calls(name: str) -> list[tuple[str, ast.Call]]:
    return [
        (path, node)
        for path, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == name
    ]


def test_every_call_that_may_load_code_of_a_repository_forbids_it() -> None:
    missing = [
        f"{path}:{call.lineno}"
        for path, call in [*calls("from_pretrained"), *calls("download")]
        if path not in OWN_MODELS
        and "scheduler" not in ast.unparse(call)
        and "load_component" not in ast.unparse(call)
        and not any(word.arg == "trust_remote_code" and ast.unparse(word.value) == "False" for word in call.keywords)
    ]
    allowed = {"teachers/diffusers/folder.py": 1, "export/fresh_diffusers.py": 1}  # models of diffusers by class
    for path, most in allowed.items():
        assert sum(place.startswith(path) for place in missing) <= most
    assert not [place for place in missing if place.rpartition(":")[0] not in allowed]


@pytest.mark.parametrize("name", unistep.SWITCHES)
def test_importing_unistep_sets_the_switches_before_any_library_reads_them(name: str) -> None:
    code = f"import os, unistep; print(os.environ[{name!r}])"
    env = {key: value for key, value in os.environ.items() if key != name}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.strip() == "1"


def test_a_library_that_was_imported_first_is_told_to_be_silent(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("def disable_telemetry_events(): print('silent')\n")
    code = "import onnxruntime, unistep"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(SOURCE.parent)])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.strip() == "silent"


def test_a_mistyped_path_is_no_name_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    assert is_hub_id("someone/model")
    assert not is_hub_id("models/typo") and not is_hub_id("./model") and not is_hub_id("a/b/c")


def test_modules_of_the_working_directory_are_not_imported_by_python_m(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise SystemExit('the working directory was executed')\n")
    env = {**os.environ, "PYTHONPATH": str(SOURCE.parent)}
    done = subprocess.run(
        [sys.executable, "-m", "unistep", "--help"], capture_output=True, text=True, cwd=tmp_path, env=env, check=False
    )
    assert done.returncode == 0 and "executed" not in done.stderr


def test_nothing_leaves_the_machine_while_a_pipeline_is_loaded(tmp_path: Path) -> None:
    code = f"""
import socket, sys
def refuse(*arguments, **named):
    print("asked", arguments, flush=True)
    raise OSError("no network")
socket.getaddrinfo = socket.socket.connect = refuse
sys.path.insert(0, {str(SOURCE.parents[1] / "tests" / "teachers")!r})
import tiny_pipelines as tiny
from unistep.teachers import load_teacher
tiny.dit().save_pretrained({str(tmp_path / "p")!r}, safe_serialization=True)
print(load_teacher("diffusers:{tmp_path / "p"}").shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "asked" not in done.stdout


def unbounded_counts(schema: Any, path: str = "") -> Iterator[str]:
    """Where a JSON schema allows whole numbers without an upper bound."""
    if isinstance(schema, dict) and schema.get("type") == "integer":
        if not {"maximum", "exclusiveMaximum", "const", "enum"} & {*schema}:
            yield path
    for key, inner in schema.items() if isinstance(schema, dict) else enumerate(schema):
        if isinstance(inner, dict | list):
            yield from unbounded_counts(inner, f"{path}.{key}")


@pytest.mark.parametrize("recipe", [DistillRecipe, TeachRecipe, CompareRecipe])
def test_every_count_of_a_recipe_has_an_upper_bound(recipe: type[BaseModel]) -> None:
    schema = recipe.model_json_schema()
    assert '"maximum"' in json.dumps(schema)  # where bounds are looked for
    assert not [*unbounded_counts(schema)]


def test_an_encoder_with_code_is_refused_without_a_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, canary = tmp_path / "encoder", tmp_path / "canary"
    folder.mkdir()
    (folder / "evil.py").write_text(f"open({str(canary)!r}, 'w')")
    auto_map = {"AutoConfig": "evil.EvilConfig", "AutoModel": "evil.Evil", "AutoTokenizer": ["evil.Evil", None]}
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto_map}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": auto_map}))
    save_file({"weight": torch.zeros(1)}, folder / "model.safetensors")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    for load in (lambda: TokenEncoder(folder, tokens=8), lambda: Clip(str(folder))):
        with pytest.raises(UserError) as error:
            load()
        assert str(folder) in str(error.value) and "\n" not in str(error.value)
    assert not canary.exists()


@pytest.mark.slow
def test_nothing_leaves_the_machine_while_a_model_is_distilled_and_exported(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"""
import os, socket
def refuse(*arguments, **named):
    with open({str(tmp_path / "asked")!r}, "a") as log:
        print(arguments, file=log)
    raise OSError("no network")
def refuse_addresses(self, address):
    return refuse(address) if isinstance(address, tuple) else None
socket.getaddrinfo = socket.gethostbyname = refuse
socket.socket.connect = socket.socket.connect_ex = refuse_addresses
with open({str(tmp_path / "started")!r}, "a") as log:
    print("process", file=log)
""")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(SOURCE.parent)])}
    small = ["--set", "training.steps=2", "--set", "fit.training.steps=2", "--set", "fit.max_error=1000"]
    for verb in (
        ["distill", "gaussians", *small, "--out", str(tmp_path / "run")],
        ["export", str(tmp_path / "run"), "--to", "onnx", "--out", str(tmp_path / "onnx")],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "unistep", *verb], capture_output=True, text=True, env=env, cwd=tmp_path, check=False
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "started").read_text().count("process") >= 3  # the two verbs, and the one that tries the export
    assert not (tmp_path / "asked").exists()


def pipeline_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pipeline"
    (folder / "scheduler").mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "DDPMPipeline"}))
    return folder


@pytest.mark.parametrize("place", ["scheduler/diffusers.py", "pipeline.py", "unet/deep/model.PY"])
def test_code_in_a_folder_is_refused_before_anything_is_imported(tmp_path: Path, place: str) -> None:
    folder, canary = pipeline_folder(tmp_path), tmp_path / "canary"
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).write_text(f"open({str(canary)!r}, 'w')")
    code = (
        "import sys; from unistep.teachers.diffusers.folder import open_folder; from unistep.errors import UserError\n"
        f"try: open_folder({str(folder)!r})\nexcept UserError as error: print(error, 'diffusers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "found Python code in a pipeline's folder, expected none" in done.stdout
    assert done.stdout.strip().endswith("False") and not canary.exists()


def test_an_older_diffusers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from unistep.teachers.diffusers import rebuild

    monkeypatch.setattr(rebuild, "version", lambda name: "0.37.1")
    with pytest.raises(UserError, match=r"diffusers: found version 0\.37\.1, expected 0\.38 or newer"):
        rebuild.import_diffusers()
