"""Exports are opened again by `unistep sample`, and give the samples of what was exported."""

import json
import sys
from pathlib import Path

import diffusers
import numpy as np
import pytest
from PIL import Image

import unistep
from unistep.errors import UserError
from unistep.export import diffusers_folder, onnx_file, safetensors_file, write_export
from unistep.export.student import Student
from unistep.teachers.checkpoint import save_denoiser

sys.path.insert(0, str(Path(__file__).parent))
from students import own_student, pixel_student, text_student, tiny


@pytest.fixture(autouse=True)
def no_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests let a fresh process prove exports; here they are only opened again."""
    found = {"differences": {"samples": 0.0}, "with": "", "timesteps": []}
    for module in (safetensors_file, onnx_file, diffusers_folder):
        monkeypatch.setattr(module, "verify_in_subprocess", lambda *_: found)


def shown(place: Path, out: Path) -> np.ndarray:
    picture = unistep.sample(place, num=4, out=out, device="cpu")
    with Image.open(picture) as file:
        return np.asarray(file).astype(int)


def saved(student: Student, folder: Path) -> Path:
    save_denoiser(folder, student.generator.denoiser, dict(student.config))
    return folder


@pytest.mark.parametrize("to", ["safetensors", "onnx"])
def test_exports_of_an_own_network_are_sampled(to: str, tmp_path: Path) -> None:
    student = own_student()
    expected = shown(saved(student, tmp_path / "generator"), tmp_path / "a")
    folder = write_export(student, to, tmp_path / to).folder
    assert np.abs(shown(folder, tmp_path / "b") - expected).max() <= 1 and np.ptp(expected) > 100
    assert unistep.sample(folder, num=1, labels=[3], out=tmp_path / "c", device="cpu").is_file()
    with pytest.raises(UserError, match="label: found 12, expected"):
        unistep.sample(folder, num=1, labels=[12], device="cpu")


def test_a_pipeline_of_pixels_is_sampled(tmp_path: Path) -> None:
    student = pixel_student(diffusers.DDIMScheduler())
    expected = shown(saved(student, tmp_path / "generator"), tmp_path / "a")
    folder = write_export(student, "diffusers", tmp_path / "export").folder
    assert np.abs(shown(folder, tmp_path / "b") - expected).max() <= 1


def test_a_pipeline_of_latents_is_sampled_without_the_teachers(tmp_path: Path) -> None:
    student = text_student(tiny.sd15(), tmp_path)
    expected = shown(saved(student, tmp_path / "generator"), tmp_path / "a")
    folder = write_export(student, "diffusers", tmp_path / "export").folder
    (tmp_path / "pipeline").rename(tmp_path / "moved")
    assert np.abs(shown(folder, tmp_path / "b") - expected).max() <= 1


def test_what_is_not_sampled_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = write_export(own_student(), "safetensors", tmp_path / "export").folder
    (folder / "generator.safetensors").unlink()
    (folder / "generator.onnx").write_bytes(b"none")
    with pytest.raises(UserError, match="onnxruntime does not open it"):
        unistep.sample(folder, num=1, device="cpu")
    (folder / "generator.onnx").unlink()
    with pytest.raises(UserError, match="found an export that unistep does not sample, expected one to safetensors"):
        unistep.sample(folder, num=1, device="cpu")
    contract = json.loads((folder / "sampling_contract.json").read_text())
    del contract["generator"]
    (folder / "sampling_contract.json").write_text(json.dumps(contract))
    with pytest.raises(UserError, match="found no configuration of a generator, expected one; export again"):
        unistep.sample(folder, num=1, device="cpu")
