"""A pipeline folder is called in a fresh process by diffusers alone; a wrong one is never there."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import huggingface_hub
import pytest
import torch

from unistep.errors import UserError
from unistep.export import Student, diffusers_folder, write_export
from unistep.export.licence import licence_of
from unistep.networks.generator import ONE_STEP, StepSchedule
from unistep.networks.lora import Adapted, LoRAConfig
from unistep.teachers.adapters import Base, StoredAdapter

sys.path.insert(0, str(Path(__file__).parent))
from students import own_student, pixel_student, text_student, tiny

LCM = StepSchedule((749.0, 499.0, 249.0))


def require_verified(contract: dict[str, Any]) -> None:
    verified = contract["verified"]
    assert 0 <= verified["samples"] <= verified["limit"] == 1e-4 and 0 <= verified["images"] <= 1e-4
    process = contract["process"]
    unit = process["num_bins"] if process["type"] == "flow" else 1
    assert verified["timesteps"] == pytest.approx([unit * t for t in contract["timesteps"]])


def test_pixels_with_classes_held_at_an_earlier_time(tmp_path: Path) -> None:
    scheduler = diffusers.DDPMScheduler(prediction_type="v_prediction")
    student = pixel_student(scheduler, t_init=600.0, num_class_embeds=4)
    exported = write_export(student, "diffusers", tmp_path / "export")
    require_verified(exported.contract)
    assert exported.contract["call"] == {"num_inference_steps": 1}
    assert exported.contract["scheduler"]["class"] == "EulerDiscreteScheduler"
    written = json.loads((tmp_path / "export" / "sampling_contract.json").read_text())
    assert written == exported.contract and written["prediction"] == "v" and written["timesteps"] == [600.0]
    card = (tmp_path / "export" / "README.md").read_text()
    assert "pipeline(class_labels=[0], num_inference_steps=1)" in card and student.teacher["sha256"] in card
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory: pytest.TempPathFactory) -> Student:
    return text_student(tiny.sd15(), tmp_path_factory.mktemp("sd15"))


def test_stable_diffusion_by_prompt_with_the_text_encoder_of_the_folder(
    stable_diffusion: Student, tmp_path: Path
) -> None:
    folder = tmp_path / "export"
    exported = write_export(stable_diffusion, "diffusers", folder)
    require_verified(exported.contract)
    assert exported.contract["call"] == {
        "num_inference_steps": 1, "guidance_scale": 1.0, "height": 16, "width": 16
    }  # fmt: skip
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)
    assert isinstance(pipeline.scheduler, diffusers.DDIMScheduler)
    ours = stable_diffusion.generator.denoiser.network.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(ours[name], value) for name, value in pipeline.unet.state_dict().items())


def test_a_pipeline_stored_in_half_precision_is_opened_without_further_knowledge(tmp_path: Path) -> None:
    """The student's network is float32, so text encoders and VAE must be opened so; the proof's limit is no looser."""
    student = text_student(tiny.sd15().to(torch.bfloat16), tmp_path, dtype="bfloat16")
    assert student.cond(torch.tensor([0]))["text"].dtype == torch.bfloat16  # type: ignore[index, call-overload]
    exported = write_export(student, "diffusers", tmp_path / "export")
    require_verified(exported.contract)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(exported.folder)
    assert {part.dtype for part in (pipeline.text_encoder, pipeline.vae, pipeline.unet)} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "steps"), [(tiny.sd3, ONE_STEP), (tiny.flux, ONE_STEP), (tiny.sdxl, ONE_STEP), (tiny.dit, ONE_STEP),
                        (tiny.pixart, ONE_STEP), (tiny.sana, ONE_STEP), (tiny.lumina2, ONE_STEP),
                        (tiny.z_image, ONE_STEP), (tiny.wan, ONE_STEP), (tiny.qwen_image, ONE_STEP),
                        (tiny.sd21, ONE_STEP), (tiny.sd15, LCM)],
)  # fmt: skip
def test_other_families_and_several_steps(make: Any, steps: StepSchedule, tmp_path: Path) -> None:
    student = text_student(make(), tmp_path, steps)
    require_verified(write_export(student, "diffusers", tmp_path / "export").contract)


@pytest.mark.slow
def test_an_adapter_is_laid_over_a_half_precision_pipeline_in_float32(tmp_path: Path) -> None:
    student = text_student(tiny.sd15().to(torch.bfloat16), tmp_path, dtype="bfloat16")
    lora = LoRAConfig(rank=2, target_modules=("to_q", "to_out.0"))
    adapted = Adapted(student.generator.denoiser, lora, seed=0)
    state = {name: 0.1 * torch.randn(p.shape) for name, p in adapted.named_parameters()}
    adapted.load_state_dict(state)
    adapted.merged()
    base = Base(source=student.teacher["source"], sha256=student.teacher["sha256"], dtype="bfloat16")
    with_adapter = replace(student, adapter=StoredAdapter(lora, base, state))
    exported = write_export(with_adapter, "lora-peft", tmp_path / "export")
    verified = exported.contract["verified"]
    assert verified["limit"] == 5e-2 and max(verified["samples"], verified["images"]) <= 1e-4
    assert "torch_dtype=torch.float32)" in (exported.folder / "README.md").read_text()


UNEVEN = (0.9, 0.4)


@pytest.mark.parametrize(
    ("make", "between"),
    [(tiny.flux, "noise"), pytest.param(tiny.flux, "ode", marks=pytest.mark.slow)]
    + [
        pytest.param(make, "noise", marks=pytest.mark.slow)
        for make in (tiny.sd3, tiny.lumina2, tiny.z_image, tiny.qwen_image, tiny.sana)
    ],
)
def test_rectified_flow_in_several_steps(make: Any, between: Any, tmp_path: Path) -> None:
    """The call is given the student's levels, so they need not be a scheduler's."""
    size = (32, 32) if make in (tiny.flux, tiny.qwen_image) else None  # their own is large
    student = text_student(make(), tmp_path, StepSchedule(UNEVEN, between), size=size)
    exported = write_export(student, "diffusers", tmp_path / "export")
    require_verified(exported.contract)
    assert exported.contract["call"]["sigmas"] == [1.0, *UNEVEN]
    assert exported.contract["scheduler"]["config"]["stochastic_sampling"] == (between == "noise")
    assert "sigmas=[1.0, 0.9, 0.4]" in (tmp_path / "export" / "README.md").read_text()


def test_rectified_flow_in_several_steps_of_a_pipeline_without_levels_is_refused(tmp_path: Path) -> None:
    student = pixel_student(diffusers.FlowMatchEulerDiscreteScheduler(), steps=StepSchedule(UNEVEN))
    with pytest.raises(UserError, match="steps: found 3, expected 1: ConsistencyModelPipeline takes no sigmas"):
        write_export(student, "diffusers", tmp_path / "export")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_samples_differently_is_never_there(
    stable_diffusion: Student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = diffusers.DDIMScheduler(**tiny.LATENT, set_alpha_to_one=False, timestep_spacing="trailing")
    monkeypatch.setattr(diffusers_folder, "scheduler_of", lambda student: wrong)
    with pytest.raises(UserError, match="^diffusers: found samples that differ by .*; nothing was exported"):
        write_export(stable_diffusion, "diffusers", tmp_path / "export")
    assert not list(tmp_path.iterdir())


def test_networks_of_unistep_are_no_pipelines(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of diffusers' classes; export with --to onnx or --to safetensors"):
        write_export(own_student(), "diffusers", tmp_path / "export")
    assert not list(tmp_path.iterdir())


def test_learned_variances_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="network.out_channels: found a learned variance"):
        write_export(pixel_student(diffusers.DDPMScheduler(), out_channels=6), "diffusers", tmp_path / "export")


def test_the_licence_is_what_the_teachers_card_says(stable_diffusion: Student) -> None:
    assert licence_of(stable_diffusion) == "unknown: see the teacher"
    card = Path(stable_diffusion.config["codec"]["source"]) / "README.md"
    card.write_text("---\nlicense: creativeml-openrail-m\n---\n# A teacher\n")
    assert licence_of(stable_diffusion) == "creativeml-openrail-m"
    card.write_text("---\nlicense: other\nlicense_name: house-rules\n---\n")
    assert licence_of(stable_diffusion) == "other (house-rules)"


def test_the_licence_of_a_repository_is_fetched_with_its_card(
    stable_diffusion: Student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []
    (tmp_path / "README.md").write_text("---\nlicense: openrail++\n---\n")

    def download(name: str, file: str) -> str:
        asked.append((name, file))
        if name == "someone/nowhere":
            raise OSError("offline")
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    for name, licence in (("someone/model", "openrail++"), ("someone/nowhere", "unknown: see the teacher")):
        assert licence_of(replace(stable_diffusion, teacher={"source": f"diffusers:{name}"})) == licence
    assert asked == [("someone/model", "README.md"), ("someone/nowhere", "README.md")]
