"""The peak of memory since it was last reset: of the accelerator, or of the process on Linux."""

import os
import re
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")


def reset_peak(device: torch.device) -> None:
    """The peak begins anew from what is held now, garbage that was not collected included."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif STATUS.is_file():
        switch = os.open("/proc/self/clear_refs", os.O_WRONLY)
        try:
            os.write(switch, b"5")  # the high-water mark of the resident set, see proc(5)
        finally:
            os.close(switch)


def peak_bytes(device: torch.device) -> int | None:
    """Bytes at the peak: tensors on an accelerator, the whole process on a CPU; None where nobody keeps count."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text()) if STATUS.is_file() else None
    return 1024 * int(found[1]) if found else None
