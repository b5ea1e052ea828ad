"""Each family of diffusers' pipelines as a teacher: the same numbers as by hand, the same samples as its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import pytest
import tiny_pipelines as tiny
import torch
from diffusers_checks import (
    condition,
    difference,
    require_adapters,
    require_gradients,
    require_round_trip,
    require_two_steps,
)
from diffusers_families import CASES, PROMPTS, Case, by_hand

from unistep.diffusion.process import FlowProcess
from unistep.diffusion.samplers import build_sampler
from unistep.teachers.diffusers import Options, teacher_from_pipeline
from unistep.teachers.diffusers.calls import pack, unpack
from unistep.teachers.diffusers.compare import relative
from unistep.teachers.diffusers.denoiser import DiffusersDenoiser
from unistep.teachers.load import load_teacher
from unistep.teachers.teacher import Teacher

TOLERANCE = 2e-4  # relative, of samples after two steps: float64 states against the pipelines' float32 ones


@pytest.fixture(scope="module", params=CASES)
def loaded(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Case, Any, Teacher]]:
    """A case, its pipeline in memory, and the teacher loaded from that pipeline's folder."""
    case, folder = CASES[request.param], tmp_path_factory.mktemp(request.param)
    pipeline = case.build()
    pipeline.save_pretrained(folder, safe_serialization=True)
    text = {"prompts": PROMPTS, "cache": str(folder / "cache")} if hasattr(pipeline, "encode_prompt") else {}
    yield case, pipeline, load_teacher(f"diffusers:{folder}", {**text, **case.options})


def words(teacher: Teacher) -> dict[str, Any]:
    """The first two prompts (or classes) as the pipeline's call takes them."""
    assert isinstance(teacher.denoiser, DiffusersDenoiser)
    return {"prompt": list(PROMPTS[:2])} if teacher.denoiser.family.encoded else {"class_labels": [0, 1]}


def test_mu_is_the_number_by_hand(loaded: tuple[Case, Any, Teacher]) -> None:
    case, pipeline, teacher = loaded
    torch.manual_seed(1)
    x_t = torch.randn(2, *teacher.shape)
    t = torch.tensor([0.3, 0.9]) if isinstance(teacher.process, FlowProcess) else torch.tensor([20.0, 70.0])
    with torch.no_grad():
        raw = case.raw(pipeline, x_t, t, list(PROMPTS[:2]))
    expected = by_hand(pipeline.scheduler, teacher.process, raw, x_t, t)
    torch.testing.assert_close(teacher(x_t, t, condition(teacher, 2)), expected, rtol=1e-3, atol=1e-3)


def test_the_sample_is_the_pipelines_own(loaded: tuple[Case, Any, Teacher]) -> None:
    case, pipeline, teacher = loaded
    assert difference(pipeline, teacher, **case.off, **words(teacher)) < TOLERANCE


@pytest.mark.parametrize(
    "build", [tiny.flux, tiny.lumina2, tiny.sd3, tiny.playground, tiny.sd21], ids=lambda f: f.__name__
)
def test_the_schedulers_own_step_and_grid_make_the_same_sample(build: Any) -> None:
    """Where the pipeline's own scheduler is of first order nothing of it is exchanged."""
    pipeline, steps = build(), 4
    given: dict[str, Any] = {"guidance_scale": 3.5 if build is tiny.flux else 1.0, "height": 16, "width": 16}
    if build is tiny.sd3:
        given["sigmas"] = [1 - i / steps for i in range(steps)]  # else it spends its last step between 0.003 and 0
    if build is tiny.playground:
        pipeline.scheduler = diffusers.EDMEulerScheduler.from_config(pipeline.scheduler.config)
    if build is tiny.sd21:
        changes = {"timestep_spacing": "trailing", "set_alpha_to_one": True}
        pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config, **changes)
    teacher = teacher_from_pipeline(pipeline, Options(PROMPTS[:1], (16, 16)))
    z = torch.randn(1, *teacher.shape)
    ratio = 80 / pipeline.scheduler.init_noise_sigma if build is tiny.playground else 1.0
    latents = pack(z) if build is tiny.flux else ratio * z
    own = pipeline(list(PROMPTS[:1]), latents=latents, num_inference_steps=steps, output_type="latent", **given)[0]
    ours = build_sampler("euler", steps)(teacher.denoiser, teacher.process, z, condition(teacher, 1)).x
    assert relative(ours, unpack(own, z.shape) if build is tiny.flux else own) < TOLERANCE


def test_guidance_and_no_condition_are_the_pipelines_own(loaded: tuple[Case, Any, Teacher]) -> None:
    case, pipeline, teacher = loaded
    if case.guidance is None:  # the pipeline's own guidance changes lengths, too
        return require_null_by_hand(case, pipeline, teacher)
    assert difference(pipeline, teacher, scale=3.0, **case.guidance(3.0), **words(teacher)) < TOLERANCE


def require_null_by_hand(case: Case, pipeline: Any, teacher: Teacher) -> None:
    assert teacher.conditioner is not None
    x_t, t = torch.randn(2, *teacher.shape), torch.tensor([0.3, 0.9])
    with torch.no_grad():
        expected = x_t - t.reshape(2, 1, 1, 1) * case.raw(pipeline, x_t, t, [" ", " "])
    torch.testing.assert_close(teacher(x_t, t, teacher.conditioner.null(2)), expected, rtol=1e-3, atol=1e-3)


def test_samples_decode_as_the_pipelines_do(loaded: tuple[Case, Any, Teacher]) -> None:
    _, pipeline, teacher = loaded
    x = torch.randn(2, *teacher.shape)
    images = teacher.codec.decode(x)
    assert images.dtype == torch.uint8 and images.shape[:2] == (2, 3)
    assert torch.equal(images, torch.cat([teacher.codec.decode(row) for row in x.split(1)]))
    assert teacher.codec.encode(images).shape == x.shape


def test_a_student_learns_and_comes_back(loaded: tuple[Case, Any, Teacher], tmp_path: Path) -> None:
    _, _, teacher = loaded
    require_gradients(teacher)
    require_round_trip(teacher, tmp_path)
    require_two_steps(teacher, tmp_path, guidance=2.0)


def test_adapters_start_as_the_teacher_and_learn(loaded: tuple[Case, Any, Teacher]) -> None:
    require_adapters(loaded[2])
