"""Latency at batch 1 and throughput at the best batch, measured on whatever makes images."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

Clock = Callable[[], float]
MakeImages = Callable[[int], object]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What was measured, and where.

    Attributes:
        latency_ms: median milliseconds for one image, from noise to 8 bits.
        images_per_second: at `batch`, the best of the batch sizes tried.
        batch: the batch size of that rate.
        repeats: number of timed runs behind the median.
        threads: threads torch computes with.
        device: readable name of the device.
    """

    latency_ms: float
    images_per_second: float
    batch: int
    repeats: int
    threads: int
    device: str


def measure_latency(make: MakeImages, repeats: int = 10, warmup: int = 2, clock: Clock = time.perf_counter) -> float:
    """Median seconds that `make(1)` takes, after warm-up runs that are not counted."""
    for _ in range(warmup):
        timed(make, 1, clock)
    return statistics.median(timed(make, 1, clock) for _ in range(repeats))


def measure_throughput(
    make: MakeImages,
    ladder: Sequence[int] = (1, 4, 16, 64, 256),
    seconds: float = 10.0,
    clock: Clock = time.perf_counter,
) -> tuple[float, int]:
    """Images per second at the best batch of a ladder, and that batch.

    Each batch runs once to warm up and once timed. The climb ends when a batch gains less than 5 %, or when the next
    one would take longer than `seconds`.
    """
    best, best_batch = 0.0, ladder[0]
    for i, batch in enumerate(ladder):
        timed(make, batch, clock)
        spent = timed(make, batch, clock)
        gained = batch / spent > 1.05 * best
        if batch / spent > best:
            best, best_batch = batch / spent, batch
        if not gained or i + 1 == len(ladder) or spent * ladder[i + 1] / batch > seconds:
            break
    return best, best_batch


def measure(
    make: MakeImages, device: torch.device, repeats: int = 10, ladder: Sequence[int] = (1, 4, 16, 64, 256)
) -> Timing:
    """Latency and throughput of `make(batch)`, which makes that many finished images on the device."""
    clock = clock_of(device)
    latency = measure_latency(make, repeats, clock=clock)
    rate, batch = measure_throughput(make, ladder, clock=clock)
    return Timing(
        latency_ms=1e3 * latency,
        images_per_second=rate,
        batch=batch,
        repeats=repeats,
        threads=torch.get_num_threads(),
        device=device_name(device),
    )


def timed(make: MakeImages, batch: int, clock: Clock) -> float:
    """Seconds of one run."""
    start = clock()
    make(batch)
    return max(clock() - start, 1e-9)


def clock_of(device: torch.device) -> Clock:
    """Seconds as they pass, read once the accelerator's queue has run empty."""

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def device_name(device: torch.device) -> str:
    """The accelerator's name, or the CPU's architecture and number of cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {platform.machine()}, {os.cpu_count()} cores"
