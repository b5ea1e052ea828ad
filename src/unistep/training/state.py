"""What a run carries from step to step, and its form in a checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unistep.methods.base import Method
from unistep.training.config import TrainingConfig
from unistep.training.distributed import unwrap
from unistep.training.ema import EMA
from unistep.training.health import HealthMonitor
from unistep.training.optim import NetworkOptimizer, build_optimizer, check_names, config_for


@dataclass
class TrainState:
    """Networks, their optimisers, the average, the number of completed steps and the best evaluation.

    No random state: every draw follows from the seed and the step. `peaks` are the largest gradient norms since the
    last log line, by network: the health monitor's, which no spike between two lines may pass.
    """

    method: Method
    optimizers: dict[str, NetworkOptimizer]
    ema: EMA | None
    health: HealthMonitor
    step: int = 0
    best: dict[str, float] = field(default_factory=dict)  # {"step": ..., "score": ...} once evaluated
    peaks: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def start(cls, method: Method, config: TrainingConfig, health: HealthMonitor) -> "TrainState":
        """The state before the first step.

        Raises:
            UserError: if optimiser settings are missing, or name a network that does not exist.
        """
        check_names(config.optim, method.networks)
        optimizers = {
            name: build_optimizer(unwrap(network), config_for(config.optim, name), name)
            for name, network in method.networks.items()
        }
        ema = EMA(method.networks[method.ema_network], config.ema) if config.ema else None
        return cls(method, optimizers, ema, health)

    def set_learning_rates(self, steps: int) -> None:
        """Sets the learning rates of the step at hand, one of `steps`."""
        milestones = self.method.milestones()
        for name, optimizer in self.optimizers.items():
            optimizer.set_step(self.step, steps, milestones.get(name, ()))

    @property
    def best_step(self) -> int | None:
        """Completed steps at the best evaluation."""
        return int(self.best["step"]) if self.best else None

    def tensors(self) -> dict[str, Tensor]:
        """Flat name -> the live tensors, `networks.*`, `optim.*`, `carried.*`, `ema.*`.

        Writing into them restores the run.
        """
        flat: dict[str, Tensor] = {}
        for name, network in self.method.networks.items():
            flat |= {f"networks.{name}.{key}": value for key, value in unwrap(network).state_dict().items()}
            flat |= {f"optim.{name}.{key}": value for key, value in self.optimizers[name].state().items()}
        for name, network in self.method.auxiliary_networks.items():
            flat |= {f"carried.{name}.{key}": value for key, value in unwrap(network).state_dict().items()}
        if self.ema is not None:
            flat |= {f"ema.{key}": value for key, value in self.ema.shadow.items()}
        return flat

    def note_norms(self, norms: Mapping[str, Tensor]) -> None:
        """Takes note of an update's gradient norms, without waiting for the device."""
        for name, norm in norms.items():
            self.peaks[name] = torch.maximum(self.peaks[name].to(norm.device), norm) if name in self.peaks else norm

    def take_peaks(self) -> dict[str, float]:
        """The largest norms noted since the last call."""
        peaks, self.peaks = self.peaks, {}
        return {name: float(norm) for name, norm in peaks.items()}

    def record(self) -> dict[str, Any]:
        """The plain values beside the tensors."""
        peaks = {name: float(norm) for name, norm in self.peaks.items()}
        return {"step": self.step, "best": self.best, "health": self.health.state(), "peaks": peaks}

    def restore(self, record: dict[str, Any]) -> None:
        """Takes the plain values back."""
        self.step, self.best = record["step"], dict(record["best"])
        self.health.restore(record["health"])
        self.peaks = {name: torch.tensor(norm) for name, norm in record.get("peaks", {}).items()}
