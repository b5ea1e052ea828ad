"""Latency and throughput against a clock that the test moves."""

import pytest
import torch

from unistep.evaluation.throughput import measure, measure_latency, measure_throughput


class Clock:
    """Time that passes only inside `make`: `fixed` seconds a call and `each` seconds an image."""

    def __init__(self, fixed: float, each: float) -> None:
        self.now, self.fixed, self.each = 0.0, fixed, each
        self.batches: list[int] = []

    def __call__(self) -> float:
        return self.now

    def make(self, batch: int) -> None:
        self.batches.append(batch)
        self.now += self.fixed + self.each * batch


def test_latency_is_the_median_after_warm_up() -> None:
    clock, slow = Clock(0.1, 0.0), iter([5.0, 5.0, 0.1, 9.0, 0.3])

    def make(batch: int) -> None:
        clock.fixed = next(slow)
        clock.make(batch)

    assert measure_latency(make, repeats=3, warmup=2, clock=clock) == pytest.approx(0.3)


def test_throughput_climbs_while_it_gains() -> None:
    clock = Clock(1.0, 0.01)
    rate, batch = measure_throughput(clock.make, (1, 4, 16), seconds=100, clock=clock)
    assert (rate, batch) == (pytest.approx(16 / 1.16), 16)
    flat = Clock(0.0, 0.01)
    assert measure_throughput(flat.make, (1, 4, 16), clock=flat)[1] in (1, 4)
    assert max(flat.batches) == 4  # no gain at 4: 16 is not tried


def test_throughput_does_not_start_what_takes_too_long() -> None:
    clock = Clock(0.5, 1.0)
    assert measure_throughput(clock.make, (1, 4, 64), seconds=5, clock=clock)[1] == 1
    assert max(clock.batches) == 1


def test_measure_says_where() -> None:
    timing = measure(lambda batch: None, torch.device("cpu"), repeats=2, ladder=(1, 2))
    assert timing.latency_ms > 0
    assert timing.repeats == 2
    assert timing.threads >= 1
    assert timing.device.startswith("CPU, ")


def test_the_device_named_and_waited_for_is_the_one_that_worked(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # a machine with a GPU
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waited.append(str(device)))
    on_cpu = measure(lambda batch: None, torch.device("cpu"), repeats=1, ladder=(1,))
    assert on_cpu.device.startswith("CPU, ") and waited == []
    on_gpu = measure(lambda batch: None, torch.device("cuda", 1), repeats=1, ladder=(1,))
    assert on_gpu.device == "GPU 1" and set(waited) == {"cuda:1"}
