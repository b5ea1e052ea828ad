"""Peak memory of a piece of work, and the memory there is: resident pages on a CPU, reserved memory on CUDA.

The sizes of tensors do not tell what a process takes on a CPU: glibc keeps freed blocks, kernels hold scratch space,
mapped pairs count once they are touched. So the system is asked. VmHWM in /proc/self/status is its own high-water mark,
exact where sampling would miss a spike between two looks, and it can be set back to the present. Free heap is handed
back first, or earlier work would hide a part of the next. Where there is no such file (macOS) the peak since the
process began stands in: measurements in ascending order are right there too.
"""

import ctypes
import os
import re
import resource
import sys
from pathlib import Path
from typing import Protocol

import torch

from unistep.training import memory
from unistep.training.memory import peak_bytes, reset_peak

MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


class Meter(Protocol):
    """Memory of this process, in bytes."""

    def start(self) -> int:
        """Begins a measurement; what is held now."""
        ...

    def now(self) -> int:
        """What is held now."""
        ...

    def peak(self) -> int:
        """The most that was held since `start`."""
        ...

    def available(self) -> int:
        """What this process could come to hold, what it holds now included."""
        ...


class DeviceMemory:
    """The memory of one device: of a GPU without the CUDA context, which is not available either."""

    def __init__(self, device: torch.device):
        self.device = device

    def start(self) -> int:
        if self.device.type != "cuda":
            give_back_free_heap()
        reset_peak(self.device)
        return self.now()

    def now(self) -> int:
        # what the allocator reserves beyond its tensors it gives back when there is need
        return torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else resident()

    def peak(self) -> int:
        return peak_bytes(self.device) or peak_of_the_process()

    def available(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.mem_get_info(self.device)[0] + torch.cuda.memory_reserved(self.device)
        return min([available_on_machine(), *available_in_cgroup()]) + self.now()


def give_back_free_heap() -> None:
    """glibc's malloc_trim; other C libraries have none."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def resident() -> int:
    """Resident pages of this process; their peak where the system does not tell."""
    found = re.search(r"VmRSS:\s+(\d+) kB", memory.STATUS.read_text()) if memory.STATUS.is_file() else None
    return 1024 * int(found[1]) if found else peak_of_the_process()


def peak_of_the_process() -> int:
    """Since it began."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def available_on_machine() -> int:
    """MemAvailable: free memory and what the system would give up for it; all there is where it does not tell."""
    try:
        return 1024 * int(re.findall(r"^MemAvailable:\s+(\d+) kB", MEMINFO.read_text(), re.M)[0])
    except (OSError, IndexError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_in_cgroup() -> list[int]:
    """What a container's limit leaves, if there is one; pages of files do not count as used, they can be dropped."""
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = re.findall(r"^anon (\d+)", (CGROUP / "memory.stat").read_text(), re.M)
    except OSError:
        return []
    return [max(int(limit) - int(used[0]), 0)] if limit != "max" and used else []
