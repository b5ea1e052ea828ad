"""Students at tiny size whose weights are random: an export is right or wrong whatever they are."""

import sys
from pathlib import Path
from typing import Any

import diffusers
import torch

from unistep.export import Student
from unistep.networks import build_denoiser
from unistep.networks.generator import ONE_STEP, Generator, StepSchedule
from unistep.teachers.diffusers import Options, load_diffusers_teacher, teacher_from_pipeline
from unistep.teachers.teacher import Teacher

sys.path.insert(0, str(Path(__file__).parents[1] / "teachers"))
import tiny_pipelines as tiny

UNET = {
    "type": "unet", "img_resolution": 8, "img_channels": 1, "model_channels": 8, "channel_mult": [1, 2],
    "num_blocks": 1, "attn_resolutions": [4], "label_dim": 10,
}  # fmt: skip


def own_student(**changes: Any) -> Student:
    """unistep's U-Net on ten classes under EDM's process."""
    config = {
        "network": UNET, "process": {"type": "edm"}, "sigma_data": 0.5, "shape": [1, 8, 8], "codec": {"type": "pixels"},
        "conditioner": {"type": "labels", "num_classes": 10}, "t_init": None,
    }  # fmt: skip
    denoiser = tiny.randomised(build_denoiser(config))
    generator = Generator(denoiser, denoiser.process).eval()
    return Student(**{"generator": generator, "config": config, "sha256": "0" * 64, "name": "tiny"} | changes)


def student_of_teacher(
    teacher: Teacher, t_init: float | None = None, steps: StepSchedule = ONE_STEP, **facts: Any
) -> Student:
    """A student with the teacher's own weights."""
    generator = Generator(teacher.trainable_copy().eval(), teacher.process, t_init, steps).eval()
    known = {"source": teacher.source, "sha256": teacher.sha256}
    return Student(generator=generator, config=teacher.config | generator.config(), sha256="0" * 64, name="tiny",
                   teacher=known, **facts)  # fmt: skip


def pixel_student(
    scheduler: Any, t_init: float | None = None, steps: StepSchedule = ONE_STEP, **changes: Any
) -> Student:
    """Of a UNet2DModel under a scheduler."""
    pipeline = diffusers.DDPMPipeline(tiny.unet_2d(**changes), scheduler)
    return student_of_teacher(teacher_from_pipeline(pipeline, Options(compare=0)), t_init, steps)


def text_student(
    pipeline: Any,
    folder: Path,
    steps: StepSchedule = ONE_STEP,
    t_init: float | None = None,
    dtype: str = "float32",
    size: tuple[int, int] | None = None,
) -> Student:
    """Of a pipeline with a VAE, saved to FOLDER/pipeline."""
    pipeline.save_pretrained(folder / "pipeline")
    reads_text = hasattr(pipeline, "encode_prompt")
    prompts = {"prompts": ["a red fox", "two boats"], "cache": str(folder / "cache")} if reads_text else {}
    large = isinstance(pipeline, diffusers.WanPipeline | diffusers.ZImagePipeline)  # their own size, in their code only
    frames = 5 if isinstance(pipeline, diffusers.WanPipeline) else None
    options = Options(**prompts, size=size or ((32, 32) if large else None), frames=frames, dtype=dtype, compare=0)
    return student_of_teacher(load_diffusers_teacher(str(folder / "pipeline"), options), t_init, steps)


@torch.no_grad()
def walked(student: Student, scheduler: Any, z: torch.Tensor) -> torch.Tensor:
    """What any pipeline does with a scheduler, for a network without conditions."""
    scheduler.set_timesteps(student.generator.steps.count)
    network: Any = student.generator.denoiser.network
    x, rng = z * scheduler.init_noise_sigma, torch.Generator().manual_seed(1)
    for t in scheduler.timesteps:
        output = network(scheduler.scale_model_input(x, t), t, return_dict=False)[0]
        x = scheduler.step(output, t, x, generator=rng, return_dict=False)[0]
    return x
