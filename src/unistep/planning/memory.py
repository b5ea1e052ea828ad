"""Peak memory of a piece of work and the memory there is: resident pages on a CPU, the allocator's count on CUDA."""

import ctypes
import os
import re
import resource
import sys
from pathlib import Path
from typing import Protocol

import torch

PROCESS = Path("/proc/self")
CGROUP = Path("/sys/fs/cgroup")


class Meter(Protocol):
    """Memory of this process on one device, in bytes."""

    def start(self) -> int:
        """Begins a measurement; what is in use now, networks that nobody refers to any more included."""
        ...

    def now(self) -> int:
        """What is in use now."""
        ...

    def peak(self) -> int:
        """The most that was in use since `start`."""
        ...

    def available(self) -> int:
        """What this process could come to hold, what it holds now included."""
        ...


def meter_for(device: torch.device) -> Meter:
    """The meter of a device."""
    return CudaMemory(device) if device.type == "cuda" else ResidentMemory()


class ResidentMemory:
    """Resident pages of the process, which is what a machine runs out of.

    The sizes of tensors do not tell: glibc keeps freed blocks, kernels hold scratch space, mapped pairs count once
    they are touched. So the system is asked. VmHWM in /proc/self/status is its own high-water mark, exact where
    sampling would miss a spike between two looks; writing 5 to /proc/self/clear_refs sets it back to the present. Free
    heap is handed back first, or earlier work would hide a part of the next. Where there is no such file (macOS) the
    peak since the process began stands in: measurements in ascending order are right there too.
    """

    def start(self) -> int:
        give_back_free_heap()
        try:
            (PROCESS / "clear_refs").write_text("5")
        except OSError:
            pass  # no such file, or not ours to write: peaks since the process began
        return self.now()

    def now(self) -> int:
        return status("VmRSS")

    def peak(self) -> int:
        return status("VmHWM")

    def available(self) -> int:
        free = [available_on_machine(), *available_in_cgroup()]
        return min(free) + status("VmRSS")


class CudaMemory:
    """Memory of torch's allocator on one GPU. The CUDA context is no part of it; it is not available either."""

    def __init__(self, device: torch.device):
        self.device = device

    def start(self) -> int:
        torch.cuda.synchronize(self.device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        return self.now()

    def now(self) -> int:
        return torch.cuda.memory_allocated(self.device)

    def peak(self) -> int:
        torch.cuda.synchronize(self.device)
        return torch.cuda.max_memory_allocated(self.device)

    def available(self) -> int:
        free, _ = torch.cuda.mem_get_info(self.device)
        return free + torch.cuda.memory_reserved(self.device)


def give_back_free_heap() -> None:
    """glibc's malloc_trim; other C libraries have none."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def status(field: str) -> int:
    """VmRSS or VmHWM; where the system does not tell, the peak since the process began."""
    try:
        found = re.search(rf"^{field}:\s+(\d+) kB", (PROCESS / "status").read_text(), re.M)
    except OSError:
        found = None
    if found is not None:
        return 1024 * int(found[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def available_on_machine() -> int:
    """MemAvailable: free memory and what the system would give up for it; all there is where it does not tell."""
    try:
        return 1024 * int(re.findall(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M)[0])
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
