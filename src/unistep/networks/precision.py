"""The one place where autocast is decided: bf16 where the hardware has it, float32 elsewhere."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import nn

from unistep.errors import UserError

HALF = (torch.float16, torch.bfloat16)

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


def weights_dtype(network: nn.Module) -> torch.dtype:
    """The type of a network's first floating-point parameter, float32 where it has none."""
    return next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)


def own_precision(device: torch.device, dtype: torch.dtype, adapted: bool) -> AbstractContextManager[Any]:
    """Switches autocast off for a network whose weights of `dtype` are in half precision already.

    Autocast would cast them anew in each pass, float16 to bf16 with three bits less, and compute the teacher of a
    training otherwise than that of its pairs; on CPUs it fails on float16. A network that is `adapted` by float32
    layers of LoRA keeps it, for their sake.
    """
    if dtype in HALF and not adapted and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def require_gradient_range(network: nn.Module, setting: str) -> None:
    """Refuses float16 weights in a network that gradients pass through: it rounds those below 6e-8 to zero.

    Raises:
        UserError: naming the setting for which they do.
    """
    if any(p.dtype == torch.float16 for p in network.parameters()):
        raise UserError(
            f"{setting}: found a teacher in float16, expected bfloat16 or float32 (teacher.options.dtype): gradients "
            "pass through its layers here, and float16 rounds small ones to zero"
        )
