"""The one place where autocast is decided: bf16 where the hardware has it, float32 elsewhere."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]


def resolve_precision(device: torch.device | str, name: Precision = "auto") -> Literal["fp32", "bf16"]:
    """`auto` becomes bf16 where that pays: on accelerators that have it, and on CPUs with AMX.

    AVX-512 without AMX multiplies bf16 natively but made a step at most 8 % shorter (docs/log.md); emulated bf16 is
    tens of times slower than float32.
    """
    if name != "auto":
        return name
    kind = torch.device(device).type
    return "bf16" if has_bf16(device) and (kind != "cpu" or probed("_is_amx_tile_supported")) else "fp32"


def has_bf16(device: torch.device | str) -> bool:
    """Whether a device multiplies bf16 natively."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return kind == "cpu" and (probed("_is_amx_tile_supported") or probed("_is_avx512_bf16_supported"))


def probed(name: str) -> bool:
    """What this torch says of the CPU; False where it has no such question."""
    probe = getattr(torch.cpu, name, None)
    return probe is not None and probe()


def autocast(device: torch.device | str, name: Precision = "auto") -> AbstractContextManager[Any]:
    """Autocast for a forward pass; parameters, coefficients and losses stay float32."""
    if resolve_precision(device, name) == "fp32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)
