"""The meter of resident memory, and what a machine or a container has."""

import sys
from pathlib import Path

import pytest
import torch

from unistep.costing import memory as planning_memory
from unistep.costing.memory import DeviceMemory, available_in_cgroup
from unistep.training import memory

MB, CPU = 10**6, torch.device("cpu")
needs_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc")


@needs_proc
def test_a_peak_that_has_passed_is_seen_and_forgotten() -> None:
    meter = DeviceMemory(CPU)
    before = meter.start()
    block = torch.ones(50 * MB)  # 200 MB, touched
    del block
    assert 199 * MB <= meter.peak() - before < 300 * MB  # the kernel counts pages in batches
    assert meter.now() - before < 100 * MB
    assert meter.start() == pytest.approx(before, abs=50 * MB)
    assert meter.peak() - before < 100 * MB


def test_on_cuda_the_peak_is_what_the_allocator_reserves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks between tensors are no one else's; what earlier work left is given back before."""
    called: list[str] = []
    counts = {"max_memory_reserved": 900, "max_memory_allocated": 500, "memory_allocated": 100}
    for name, value in counts.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: called.append("empty"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: called.append("reset"))
    meter = DeviceMemory(torch.device("cuda"))
    assert (meter.start(), meter.peak(), called) == (100, 900, ["empty", "reset"])


@needs_proc
def test_what_the_process_holds_counts_as_available() -> None:
    meter = DeviceMemory(CPU)
    assert meter.available() > meter.now()


@pytest.mark.parametrize(
    ("limit", "stat", "left"),
    [("1000", "anon 300\nfile 900\n", [700]), ("1000", "anon 1300\n", [0]), ("max", "anon 300\n", []), ("7", "", [])],
)
def test_a_containers_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, stat: str, left: list[int]
) -> None:
    monkeypatch.setattr(planning_memory, "CGROUP", tmp_path)
    assert available_in_cgroup() == []
    (tmp_path / "memory.max").write_text(limit + "\n")
    (tmp_path / "memory.stat").write_text(stat)
    assert available_in_cgroup() == left


def test_without_proc_the_peak_since_the_start_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "STATUS", tmp_path / "nothing")
    meter = DeviceMemory(CPU)
    assert meter.start() == meter.now() == meter.peak() > 10 * MB
