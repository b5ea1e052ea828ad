"""One safetensors file and one ONNX graph: opened in a fresh process, and refused where they cannot be."""

import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import unistep
from unistep.errors import UserError
from unistep.export import Student, fresh, onnx_file, write_export
from unistep.export.fresh import last_error_line, verify_in_subprocess
from unistep.networks.generator import Generator, StepSchedule

sys.path.insert(0, str(Path(__file__).parent))
from students import own_student, text_student, tiny


def several(student: Student) -> Student:
    """The same in two steps."""
    generator = student.generator
    two = Generator(generator.denoiser, generator.process, steps=StepSchedule((1.0,))).eval()
    return dataclasses.replace(student, generator=two, config={**student.config, **two.config()})


def test_the_single_file_is_the_generator(tmp_path: Path) -> None:
    student = several(own_student(weights="ema", guidance=1.75))
    exported = write_export(student, "safetensors", tmp_path / "export")
    file = exported.folder / "generator.safetensors"
    assert exported.contract["verified"]["samples"] <= 1e-4 and exported.contract["guidance"]["learnt"] == 1.75
    again, config, _ = unistep.load_generator(file)
    z, cond = torch.randn(2, 1, 8, 8), torch.tensor([0, -1])
    with torch.no_grad():
        assert torch.equal(again.sample(z, cond, torch.arange(2)), student.generator.sample(z, cond, torch.arange(2)))
    assert config["shape"] == [1, 8, 8]
    with safe_open(str(file), framework="pt") as opened:
        contract = json.loads(opened.metadata()["contract"])
    assert contract["steps"] == 2 and contract["noise_scale"] == 80 and contract["weights"] == "ema"
    assert unistep.sample(file, num=3, labels=["2"], device="cpu").parent == exported.folder / "samples"


@pytest.mark.parametrize("metadata", [None, {"config": "{}"}, {"config": "no JSON"}, {"config": "[1]"}])
def test_other_files_are_refused(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, str(tmp_path / "x.safetensors"), metadata=metadata)
    with pytest.raises(UserError, match=r"x\.safetensors: (found no configuration|no readable)"):
        unistep.load_generator(tmp_path / "x.safetensors")
    (tmp_path / "y.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"y\.safetensors: no readable safetensors file"):
        unistep.load_generator(tmp_path / "y.safetensors")


def test_the_graph_takes_any_number_of_rows(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    exported = write_export(own_student(), "onnx", tmp_path / "export")
    assert exported.contract["verified"]["samples"] <= 1e-4 < exported.contract["verified"]["limit"] == 1e-3
    assert exported.contract["inputs"] == {
        "z": {"dtype": "float32", "shape": ["batch", 1, 8, 8]}, "label": {"dtype": "int64", "shape": ["batch"]}
    }  # fmt: skip
    assert {path.name for path in exported.folder.iterdir()} == {
        "generator.onnx", "README.md", "sampling_contract.json"
    }  # fmt: skip


@pytest.mark.slow
def test_networks_of_diffusers_are_graphs_too(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    exported = write_export(text_student(tiny.sd15(), tmp_path), "onnx", tmp_path / "export")
    assert set(exported.contract["inputs"]) == {"z", "text"} and exported.contract["space"] == "vae"


def test_a_failure_in_the_fresh_process_is_told_in_all_its_words(tmp_path: Path) -> None:
    (tmp_path / "generator.onnx").write_bytes(b"no graph")
    with pytest.raises(
        UserError, match="^onnx: a fresh process cannot sample the export: .*INVALID_PROTOBUF"
    ) as caught:
        verify_in_subprocess("onnx", tmp_path / "generator.onnx", {"samples": torch.zeros(2, 3).T}, {})
    assert "\n" not in str(caught.value)
    several = 'Traceback (most recent call last):\n  File "a.py", line 1\n    f()\nValueError: two\n lines\n'
    assert last_error_line(several) == "ValueError: two lines" and last_error_line("") == ""
    assert last_error_line("a warning\nkilled") == "killed"


def test_several_steps_are_no_graph(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(UserError, match="steps: found 2, expected 1"):
        write_export(several(own_student()), "onnx", tmp_path / "export")
    assert not list(tmp_path.iterdir())


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "NEEDED", ("onnx", "no_such_library"))
    monkeypatch.setattr(onnx_file, "find_spec", {"onnx": True}.get)
    with pytest.raises(UserError, match=r"^onnx: no_such_library not installed; .*unistep\[onnx\]"):
        write_export(own_student(), "onnx", tmp_path / "export")


def test_places_and_forms(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UserError, match="holds other files"):
        write_export(own_student(), "safetensors", tmp_path)
    with pytest.raises(UserError, match="a file is where a folder is needed"):
        write_export(own_student(), "safetensors", tmp_path / "mine.txt")
    with pytest.raises(UserError, match="to: found 'ckpt', expected one of diffusers, safetensors, onnx"):
        write_export(own_student(), "ckpt", tmp_path / "export")
    with pytest.raises(UserError, match="its network is a module of your own"):
        own = dataclasses.replace(own_student(), config={"shape": [1], "codec": {"type": "pixels"}, "t_init": None})
        write_export(own, "safetensors", tmp_path / "export")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_killed_export_leaves_only_what_the_next_one_sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere, place = tmp_path / "tmp", tmp_path / "out"
    elsewhere.mkdir()
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    run = subprocess.run

    def kept(*arguments: object, **options: object) -> object:
        (draft,) = place.glob(".export.*.tmp")
        assert not list(elsewhere.iterdir()) and list(draft.glob(".asked-*/asked.safetensors"))
        shutil.copytree(draft, place / ".export.999999.tmp")  # what a kill at this moment would leave
        return run(*arguments, **options)

    monkeypatch.setattr(fresh.subprocess, "run", kept)
    write_export(own_student(), "safetensors", place / "export")
    assert (place / ".export.999999.tmp").is_dir()
    monkeypatch.setattr(fresh.subprocess, "run", run)
    exported = write_export(own_student(), "safetensors", place / "export").folder
    assert [path.name for path in place.iterdir()] == ["export"] and not list(elsewhere.iterdir())
    assert not list(exported.glob(".*"))
