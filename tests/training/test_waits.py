"""A step of any method waits for its device once: the rest runs on the meta device, where a wait is an error."""

from typing import Any

import pytest
import torch
from tiny_dmd import METHODS, tiny_method
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from unistep.training import Streams
from unistep.training.finite import FiniteCheck
from unistep.training.health import HealthMonitor
from unistep.training.prefetch import Prefetcher
from unistep.training.state import TrainState
from unistep.training.step import train_step

META = torch.device("meta")


class Uploads(TorchDispatchMode):
    """Notes for each copy from the CPU to the device whether it was asked not to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.without_waiting: list[bool] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.name() == "aten::_to_copy" and args[0].device.type == "cpu" and kwargs.get("device") == META:
            self.without_waiting.append(bool(kwargs.get("non_blocking")))
        return func(*args, **kwargs)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_waits_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[int] = []
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *kind: False)  # which does not know this device
    monkeypatch.setattr(FiniteCheck, "require_finite", lambda check: fetched.append(len(check.phases)))
    method, source, settings = tiny_method(name, "none")
    for network in (*method.networks.values(), *method.auxiliary_networks.values()):
        network.to(META)
    for attribute in vars(method).values():
        for module in (attribute, getattr(attribute, "denoiser", None)):
            if isinstance(module, torch.nn.Module):
                module.to(META)
    assert isinstance(source, Streams)
    source.device = META
    state, ahead = TrainState.start(method, settings, HealthMonitor()), Prefetcher(META)
    try:
        train_step(state, source, settings, META, ahead)  # constants are uploaded once
        with Uploads() as uploads:
            report = train_step(state, source, settings, META, ahead)
    finally:
        ahead.close()
    assert uploads.without_waiting and all(uploads.without_waiting)
    assert fetched == [len(method.phases(0))] * 2  # the flags of all phases, together
    assert all(isinstance(value, Tensor) for values in report.terms.values() for value in values)
