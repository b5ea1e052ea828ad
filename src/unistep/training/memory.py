"""The peak of memory since it was last reset: of the accelerator, or of the process on Linux."""

import os
import re
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")


def reset_peak(device: torch.device) -> None:
    """The peak begins anew from what is held now, garbage that was not collected included."""
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what earlier work left reserved is not part of the next peak
        torch.cuda.reset_peak_memory_stats(device)
    elif STATUS.is_file():
        switch = os.open("/proc/self/clear_refs", os.O_WRONLY)
        try:
            os.write(switch, b"5")  # the high-water mark of the resident set, see proc(5)
        finally:
            os.close(switch)


def peak_bytes(device: torch.device) -> int | None:
    """Bytes at the peak: what the allocator reserves on CUDA, the whole process on a CPU; None without a count.

    Blocks between tensors are reserved, too, and nobody else can have them: `max_memory_allocated` leaves them out.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text()) if STATUS.is_file() else None
    return 1024 * int(found[1]) if found else None
