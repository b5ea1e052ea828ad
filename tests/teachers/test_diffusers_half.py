"""Pipelines in half precision: each family is read, compared with its pipeline's own sample, and answers."""

from pathlib import Path

import pytest
import torch
from diffusers_checks import condition
from diffusers_families import CASES, PROMPTS

from unistep.teachers.load import load_teacher


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", CASES)
def test_a_half_precision_teacher_makes_its_pipelines_sample(name: str, dtype: str, tmp_path: Path) -> None:
    case = CASES[name]
    pipeline = case.build()
    pipeline.save_pretrained(tmp_path, safe_serialization=True)
    text = {"prompts": PROMPTS, "cache": str(tmp_path / "cache")} if hasattr(pipeline, "encode_prompt") else {}
    teacher = load_teacher(f"diffusers:{tmp_path}", {**text, **case.options, "dtype": dtype})
    assert teacher.denoiser.dtype == getattr(torch, dtype)  # type: ignore[attr-defined]
    t = teacher.process.time(torch.tensor([0.3, 0.8], dtype=torch.float64)).float()
    x_t, cond = torch.randn(2, *teacher.shape), condition(teacher, 2)
    mu = teacher(x_t, t, cond)
    assert mu.dtype == torch.float32 and mu.isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):  # as in training: the teacher is the one that made the pairs
        assert torch.equal(teacher(x_t, t, cond), mu)
