"""Folders, hub names and options that make no teacher are refused in one line, before anything is computed."""

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import tiny_pipelines as tiny
import torch

from unistep.diffusion.process import FlowProcess
from unistep.errors import UserError
from unistep.teachers.checkpoint import load_generator, save_denoiser
from unistep.teachers.codecs import codec_from_config
from unistep.teachers.diffusers import Options, load, teacher_from_pipeline
from unistep.teachers.diffusers.folder import open_folder
from unistep.teachers.diffusers.rebuild import build_network
from unistep.teachers.load import load_teacher


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sd15")
    tiny.sd15().save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "sd15")


def options(folder: Path, **changes: Any) -> dict[str, Any]:
    return {"prompts": ["a", "b"], "cache": str(folder / "cache"), **changes}


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refusal(folder: Path, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        load_teacher(f"diffusers:{folder}", options(folder, **changes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_embeddings_are_computed_once_and_the_encoders_are_not_loaded_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_teacher(f"diffusers:{folder}", options(folder))
    monkeypatch.setattr(load, "TextEncoder", None)  # a second use of the text encoders would fail
    again = load_teacher(f"diffusers:{folder}", options(folder))
    assert first.conditioner is not None and again.conditioner is not None and again.sha256 == first.sha256
    a, b = (teacher.conditioner.from_seeds(torch.arange(3)) for teacher in (first, again))  # type: ignore[union-attr]
    assert torch.equal(a["text"], b["text"])  # type: ignore[index, call-overload]
    with pytest.raises(TypeError):
        load_teacher(f"diffusers:{folder}", options(folder, prompts=["another"]))


def test_other_text_encoders_have_other_embeddings(folder: Path) -> None:
    key = load_teacher(f"diffusers:{folder}", options(folder)).conditioner
    weights = tiny.clip(seed=8)
    weights.save_pretrained(folder / "text_encoder")
    other = load_teacher(f"diffusers:{folder}", options(folder)).conditioner
    assert key is not None and other is not None and key.config()["sha256"] != other.config()["sha256"]


def test_files_that_are_not_read_do_not_change_the_hash(folder: Path) -> None:
    first = load_teacher(f"diffusers:{folder}", options(folder))
    for name, weights in (("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"),
                          ("text_encoder", "model")):  # fmt: skip
        for other in (".fp16.safetensors", ".bin", ".fp16-00001-of-00002.safetensors", ".safetensors.index.fp16.json"):
            (folder / name / f"{weights}{other}").write_bytes(b"another variant")
    again = load_teacher(f"diffusers:{folder}", options(folder))
    assert again.sha256 == first.sha256 and again.conditioner.config() == first.conditioner.config()  # type: ignore[union-attr]


def test_what_decides_the_null_condition_is_in_the_key(tmp_path: Path) -> None:
    tiny.sdxl().save_pretrained(tmp_path)
    keys = []
    for zeros in (True, False):
        edit(tmp_path / "model_index.json", force_zeros_for_empty_prompt=zeros)
        conditioner = load_teacher(f"diffusers:{tmp_path}", options(tmp_path, compare=0)).conditioner
        assert conditioner is not None and bool(conditioner.null(1)["text"].any()) != zeros  # type: ignore[index, call-overload]
        keys.append(conditioner.config()["sha256"])
    assert keys[0] != keys[1]


def test_a_text_encoder_that_is_left_out_is_in_the_key(tmp_path: Path) -> None:
    tiny.sd3().save_pretrained(tmp_path)
    keys = set()
    for changes in ({}, {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}):
        edit(tmp_path / "model_index.json", **changes)
        conditioner = load_teacher(f"diffusers:{tmp_path}", options(tmp_path, compare=0)).conditioner
        assert conditioner is not None
        keys.add(conditioner.config()["sha256"])
    assert len(keys) == 2


def test_codec_comes_back_from_its_configuration(folder: Path) -> None:
    codec = load_teacher(f"diffusers:{folder}", options(folder)).codec
    again, x = codec_from_config(json.loads(json.dumps(codec.config()))), torch.randn(1, 4, 8, 8)
    assert torch.equal(codec.decode(x), again.decode(x))
    with pytest.raises(UserError, match="codec.source: found none: the VAE was in memory only"):
        codec_from_config({"type": "vae", "source": None, "frames": None})


@pytest.mark.parametrize("missing", ["unet", "vae", "scheduler", "text_encoder", "tokenizer"])
def test_a_missing_component_is_named(folder: Path, missing: str) -> None:
    shutil.rmtree(folder / missing)
    assert f"found no {missing}/, expected the" in refusal(folder)


def test_what_model_index_may_not_say(folder: Path) -> None:
    index = folder / "model_index.json"
    edit(index, unet=["my_code", "MyUNet"])
    assert "unet: found MyUNet of my_code, expected a class of diffusers or transformers" in refusal(folder)
    edit(index, unet=[None, None])
    assert "found no unet or transformer" in refusal(folder)
    edit(index, _class_name="os")
    assert "_class_name: found 'os', expected the name of a pipeline class" in refusal(folder)
    edit(index, _class_name=["my_pipeline", "MyPipeline"])
    assert "_class_name: found ['my_pipeline', 'MyPipeline']" in refusal(folder)
    index.write_text("{")
    assert "model_index.json: no readable JSON" in refusal(folder)
    index.unlink()
    assert "found no model_index.json, expected the folder of a diffusers pipeline" in refusal(folder)


def test_weights_that_are_no_safetensors_are_refused(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    assert "the pipeline cannot be loaded" in refusal(folder)


def test_damaged_weights_are_refused(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"nothing")
    assert "the pipeline cannot be loaded" in refusal(folder)


def test_networks_that_need_more_are_refused(folder: Path) -> None:
    edit(folder / "unet" / "config.json", time_cond_proj_dim=8)
    assert "network.time_cond_proj_dim: found 8, expected none: it needs an embedded guidance scale" in refusal(folder)
    edit(folder / "unet" / "config.json", time_cond_proj_dim=None, addition_embed_type="image")
    assert "network: found UNet2DConditionModel + image, expected one of UNet2DModel" in refusal(folder)


def test_absent_and_gated_repositories(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="found no folder ./nowhere/at/all, expected diffusers:FOLDER or"):
        load_teacher("diffusers:./nowhere/at/all")

    def download(spec: str, **given: Any) -> str:
        raise OSError(f"{spec} is gated.\nYou must be authenticated to access it.")

    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", download)
    with pytest.raises(
        UserError, match="cannot fetch someone/model from the hub: .* gated, accept its licence"
    ) as caught:
        load_teacher("diffusers:someone/model")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "int8"}, "teacher.options.dtype: found 'int8', expected one of float32, bfloat16, float16"),
        ({"size": [17, 16]}, "teacher.options.size: found 17 x 16, expected multiples of 2 pixels"),
        ({"frames": 3}, "teacher.options.frames: found 3, expected none: this pipeline makes images"),
        ({"guidance_embedding": 3.5}, "guidance_embedding: found one, expected none"),
        ({"null_class": True}, "null_class: found true, expected a network with classes; it has 0"),
        ({"steps": 3}, "teacher.options.steps: unknown key"),
        ({"compare": "no"}, "teacher.options.compare: found 'no', expected a whole number"),
        ({"prompts": "nowhere.txt"}, "found no file nowhere.txt"),
    ],
)
def test_options_that_do_not_fit(folder: Path, changes: dict[str, Any], message: str) -> None:
    assert message in refusal(folder, **changes)


def test_a_size_that_the_pipeline_refuses(folder: Path) -> None:
    message = refusal(folder, size=[20, 20])
    assert "the pipeline makes no sample to compare with: `height` and `width` have to be divisible by 8" in message
    assert load_teacher(f"diffusers:{folder}", options(folder, size=[20, 20], compare=0)).shape == (4, 10, 10)


def test_only_pipelines_have_options() -> None:
    with pytest.raises(UserError, match="teacher.options.prompts: found it, expected none: only diffusers"):
        load_teacher("gaussians:ring8", {"prompts": "p.txt"})


def test_pixel_models_read_no_prompts(tmp_path: Path) -> None:
    diffusers.DDPMPipeline(tiny.unet_2d(), diffusers.DDPMScheduler()).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="prompts: found some, expected none: this pipeline reads no text"):
        load_teacher(f"diffusers:{tmp_path}", {"prompts": ["a"]})


# --------------------------------------------------------------------------------------------- settings that are read


def test_flux_is_told_the_pipelines_guidance_or_another() -> None:
    for asked, told in ((None, 3.5), (1.0, 1.0)):
        teacher = teacher_from_pipeline(tiny.flux(), Options(("a",), (16, 16), guidance_embedding=asked))
        assert teacher.config["reading"]["constants"] == {"guidance": told}


@pytest.mark.parametrize("side", [16, 32, 64])
def test_fluxs_shift_grows_with_the_image(side: int) -> None:
    pipeline = tiny.flux(False)
    teacher = teacher_from_pipeline(pipeline, Options(("a",), (side, side), compare=0))
    tokens = (side // 4) ** 2
    mu = 0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256)
    pipeline.scheduler.set_timesteps(4, mu=mu, sigmas=[1.0, 0.75, 0.5, 0.25])
    assert isinstance(teacher.process, FlowProcess)
    torch.testing.assert_close(
        teacher.process.sampling_times(4).float(), pipeline.scheduler.sigmas, rtol=1e-5, atol=1e-6
    )


def test_sd3s_training_grid_is_the_schedulers() -> None:
    pipeline = tiny.sd3()
    process = teacher_from_pipeline(pipeline, Options(("a",))).process
    levels = process.time(torch.arange(1000) / 999).flip(0)
    torch.testing.assert_close(levels, pipeline.scheduler.sigmas, rtol=1e-5, atol=1e-6)


# ----------------------------------------------------------------------------------------------- a student's own folder


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"class": "os.system", "config": {}}, "network.class: found 'os.system', expected the name of a model class"),
        ({"class": "DDPMScheduler", "config": {}}, "network.class: found 'DDPMScheduler'"),
        ({"class": "DiffusionPipeline", "config": {}}, "network.class: found 'DiffusionPipeline'"),
        ({"class": "UNet2DModel", "config": {"layers": 3}}, "network.config.layers: unknown key"),
        ({"class": "UNet2DModel", "config": {"norm_num_groups": 3}}, "values that make no UNet2DModel"),
        ({"class": "UNet2DModel", "config": None}, "network.config: found None, expected a mapping"),
    ],
)
def test_only_models_of_diffusers_are_built(network: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_network(network)


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        ({"prediction": "noise"}, "reading.prediction: found 'noise'"),
        ({"sigma_data": 0.0}, "reading.sigma_data: found 0.0"),
        ({"constants": {"guidance": "3"}}, "reading.constants: found"),
        ({"sign": None}, "reading.sign: found None"),
    ],
)
def test_a_students_configuration_is_checked(tmp_path: Path, reading: dict[str, Any], message: str) -> None:
    teacher = teacher_from_pipeline(diffusers.DDPMPipeline(tiny.unet_2d(), diffusers.DDPMScheduler()))
    config = teacher.config | {"reading": teacher.config["reading"] | reading, "t_init": None}
    save_denoiser(tmp_path / "g", teacher.denoiser, config)
    with pytest.raises(UserError, match=f"config.json: {message}"):
        load_generator(tmp_path / "g")


def test_loading_shows_no_bars_of_libraries_and_leaves_theirs_as_they_were(
    original: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from diffusers.utils import logging

    capfd.readouterr()
    open_folder(str(original)).load("float32", ("unet", "scheduler", "vae"))
    assert "Loading" not in capfd.readouterr().err and logging.is_progress_bar_enabled()
