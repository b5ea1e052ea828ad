"""The facts that define a row: two stores with the same facts hold the same bytes for the same seed."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from unistep.diffusion.samplers import Sampler, seeded_normal
from unistep.errors import UserError
from unistep.teachers.teacher import Teacher

Facts = dict[str, Any]

DTYPES: Mapping[str, torch.dtype] = {"float32": torch.float32, "float16": torch.float16}


def row_facts(teacher: Teacher, sampler: Sampler, *, guidance: float = 1.0, dtype: str = "float32") -> Facts:
    """What a row is, apart from its seed: teacher, solver, guidance, storage type. A store is opened against these.

    `noise` holds the first numbers of seed 0's z: z itself is not stored, so they tell whether it is still the same.

    Raises:
        UserError: for an unknown storage type.
    """
    if dtype not in DTYPES:
        raise UserError(f"pairs.dtype: found {dtype!r}, expected one of {', '.join(DTYPES)}")
    conditioner = teacher.conditioner.config() if teacher.conditioner else {}
    return plain(
        {
            "teacher": teacher.sha256,
            "process": teacher.process.config(),
            "conditioner": {
                k: v for k, v in conditioner.items() if k not in ("names", "folder", "prompts", "encoder")
            },  # for readers
            "shape": teacher.shape,
            "solver": sampler.config(),
            "guidance": float(guidance),
            "dtype": dtype,
            "noise": seeded_normal(torch.tensor([0]), teacher.shape).flatten()[:4].tolist(),
        }
    )


def kernel_facts(*, tile: int, rows_per_shard: int, device: torch.device, threads: int) -> Facts:
    """What decides the last bits of a row (and the cut into files): the shapes and the machine it is solved on."""
    convolutions = {"cudnn_tf32": torch.backends.cudnn.allow_tf32} if device.type == "cuda" else {}
    return {
        "tile": tile,
        "rows_per_shard": rows_per_shard,
        "device": device_name(device),
        "threads": threads,
        "torch": torch.__version__,
        "float32_matmul": torch.get_float32_matmul_precision(),
        **convolutions,
    }


def device_name(device: torch.device) -> str:
    """The device and the kernels it runs: `cpu (AVX2)`, `cuda (NVIDIA H100)`."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.backends.cpu.get_cpu_capability()})" if device.type == "cpu" else device.type


def require_facts(found: Mapping[str, Any], expected: Mapping[str, Any], file: Path) -> None:
    """Every expected fact must be found as it is; facts that nothing is expected of are free.

    Raises:
        UserError: naming file, field, what was found and what was expected.
    """
    flat = dict(flatten(found))
    for field, value in flatten(plain(expected)):
        if field not in flat or flat[field] != value:
            raise UserError(
                f"{file}: {field}: found {flat.get(field, 'nothing')}, expected {value}; these pairs were made "
                "another way: use another folder, or delete this one to make them anew"
            )


def flatten(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested facts as (dotted name, value)."""
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def plain(value: Any) -> Any:
    """The value as JSON gives it back: tuples become lists, and infinity, which JSON lacks, a string."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
