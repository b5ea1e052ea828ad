"""A checkpoint for ComfyUI is opened by diffusers' `from_single_file` in a fresh process, or is not there."""

import json
import sys
from pathlib import Path
from typing import Any

import diffusers
import pytest
from safetensors import safe_open

from unistep.errors import UserError
from unistep.export import write_export
from unistep.export.comfy import originals, write
from unistep.networks.generator import ONE_STEP, StepSchedule

sys.path.insert(0, str(Path(__file__).parent))
from comfy_students import sd1, sd2, sdxl, tiny_rows
from students import own_student, text_student, tiny

LCM = StepSchedule((749.0, 499.0, 249.0))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(originals, "ORIGINALS", tiny_rows())


@pytest.mark.slow
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("make", "steps", "t_init", "kept"),
    [
        (sd1, ONE_STEP, None, "cond_stage_model.transformer.text_model.final_layer_norm.bias"),
        (sd1, LCM, None, "first_stage_model.decoder.up.3.upsample.conv.bias"),
        (sd2, ONE_STEP, 600.0, "cond_stage_model.model.transformer.resblocks.1.attn.in_proj_bias"),
        (sdxl, ONE_STEP, None, "conditioner.embedders.1.model.text_projection"),
    ],
)
def test_a_fresh_process_opens_the_checkpoint(
    make: Any, steps: StepSchedule, t_init: float | None, kept: str, tmp_path: Path
) -> None:
    student = text_student(make(), tmp_path, steps, t_init)
    exported = write_export(student, "comfy", tmp_path / "export")
    contract = exported.contract
    assert {path.name for path in exported.folder.iterdir()} == {
        "tiny.safetensors", "workflow_api.json", "sampling_contract.json", "README.md"
    }  # fmt: skip
    assert 0 <= contract["verified"]["samples"] <= 1e-4 and contract["verified"]["images"] <= 1e-4
    with safe_open(str(exported.folder / "tiny.safetensors"), framework="pt") as file:
        names = set(file.keys())
    assert kept in names and "model.diffusion_model.out.2.weight" in names
    assert ("v_pred" in names) == (make is sd2) and "ztsnr" not in names
    told = contract["comfyui"]
    assert told["steps"] == contract["steps"] and ("first_sigma" in told) == (t_init is not None)
    nodes = json.loads((exported.folder / "workflow_api.json").read_text())
    assert nodes["checkpoint"]["inputs"]["ckpt_name"] == told["file"] == "tiny.safetensors"
    card = (exported.folder / "README.md").read_text()
    assert "models/checkpoints" in card and "library_name: diffusion-single-file" in card


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_a_wrong_weight_is_never_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = write.original_vae
    monkeypatch.setattr(
        write, "original_vae", lambda state, config: {k: v + 1e-3 for k, v in original(state, config).items()}
    )
    with pytest.raises(UserError, match=r"^diffusers: a fresh process .*: \d+ weights of the vae differ"):
        write_export(text_student(sd1(), tmp_path), "comfy", tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_what_comfyui_opens_no_checkpoint_of_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of diffusers' classes"):
        write_export(own_student(), "comfy", tmp_path / "export")
    with pytest.raises(UserError, match=r"found DiTPipeline, expected Stable Diffusion 1, 2 or XL"):
        write_export(text_student(tiny.dit(), tmp_path), "comfy", tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_a_vae_of_another_shape_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tiny_rows()
    monkeypatch.setattr(originals, "ORIGINALS", rows)
    pipeline = sd1()
    pipeline.register_modules(vae=tiny.vae())
    with pytest.raises(UserError, match=r"^vae\.down_block_types: found .*, expected .* as in Stable Diffusion 1"):
        write_export(text_student(pipeline, tmp_path), "comfy", tmp_path / "export")


def test_another_padding_of_prompts_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(originals, "ORIGINALS", tiny_rows(pad=0))
    with pytest.raises(UserError, match=r"^tokenizer\.pad_token_id: found 513, expected 0 as in Stable Diffusion 1"):
        write_export(text_student(sd1(), tmp_path), "comfy", tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_tiny_models_are_none_of_the_published_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^unet\.cross_attention_dim: found 16, expected 768"):
        write_export(text_student(sd1(), tmp_path), "comfy", tmp_path / "export")
    student = text_student(sd1(), tmp_path / "other")
    student.config["codec"]["source"] = None  # type: ignore[index]
    with pytest.raises(UserError, match="found no pipeline with a VAE on the disk"):
        write_export(student, "comfy", tmp_path / "export")
    assert isinstance(student.generator.denoiser.network, diffusers.UNet2DConditionModel)  # type: ignore[union-attr]
