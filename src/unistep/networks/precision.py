"""The one place where autocast is decided: bf16 where the hardware has it, float32 elsewhere."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]


def resolve_precision(device: torch.device | str, name: Precision = "auto") -> Literal["fp32", "bf16"]:
    """`auto` becomes bf16 only where bf16 arithmetic is native; emulated bf16 is tens of times slower than float32."""
    if name != "auto":
        return name
    kind = torch.device(device).type
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if kind == "cpu" and cpu_has_bf16() else "fp32"


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 natively (AMX or AVX-512 BF16)."""
    probes = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(probe() for probe in probes if probe is not None)


def autocast(device: torch.device | str, name: Precision = "auto") -> AbstractContextManager[Any]:
    """Autocast for a forward pass; parameters, coefficients and losses stay float32."""
    if resolve_precision(device, name) == "fp32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)
