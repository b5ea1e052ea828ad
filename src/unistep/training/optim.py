"""AdamW or RAdam per network, its learning rate as a pure function of the step, and clipping by the global norm."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, RAdam

from unistep.errors import UserError
from unistep.training.config import OptimConfig
from unistep.training.distributed import full_tensor


def learning_rate(config: OptimConfig, step: int, steps: int, milestones: Sequence[int] = ()) -> float:
    """Learning rate of step `step` (from 0) of `steps`.

    The schedule's value times min(1, (s + 1) / warmup), with s the steps since the start or the last milestone.
    """
    last = max((m for m in milestones if m <= step), default=0)
    rise = min(1.0, (step - last + 1) / config.warmup) if config.warmup else 1.0
    if config.schedule == "constant":
        return config.lr * rise
    first, end = (last, min((m for m in milestones if m > step), default=steps)) if config.restart else (0, steps)
    done = (step - first) / (end - first)
    fall = 0.5 * (1 + math.cos(math.pi * done)) if config.schedule == "cosine" else 1 - done
    return config.lr * rise * (config.final_fraction + (1 - config.final_fraction) * fall)


def config_for(optim: Mapping[str, OptimConfig], name: str) -> OptimConfig:
    """The settings of one network, or the default.

    Raises:
        UserError: if there is neither.
    """
    config = optim.get(name) or optim.get("default")
    if config is None:
        raise UserError(f"training.optim: found {sorted(optim)}, expected an entry for {name!r} or a default")
    return config


def check_names(optim: Mapping[str, OptimConfig], networks: Mapping[str, nn.Module]) -> None:
    """Refuses settings for networks that the method does not have."""
    known = ", ".join(["default", *sorted(networks)])
    for name in optim:
        if name != "default" and name not in networks:
            raise UserError(
                f"training.optim.{name}: no such network; expected one of {known}; null leaves out what an "
                "extended recipe has"
            )


@dataclass(frozen=True)
class NetworkOptimizer:
    """One network's trainable parameters with their AdamW or RAdam.

    Adam's moments exist from the start (as zeros, which is what AdamW would begin with), so a checkpoint has the same
    keys at every step.
    """

    name: str
    parameters: dict[str, nn.Parameter]
    adam: AdamW | RAdam
    config: OptimConfig

    @property
    def lr(self) -> float:
        """The learning rate as it is set."""
        return self.adam.param_groups[0]["lr"]

    def set_step(self, step: int, steps: int, milestones: Sequence[int]) -> None:
        """Sets the learning rate of a step, and at a milestone forgets the moments if the settings ask for it."""
        lr = learning_rate(self.config, step, steps, milestones)
        for group in self.adam.param_groups:
            group["lr"] = lr
        if self.config.reset_at_milestones and step > 0 and step in milestones:
            for value in self.state().values():
                value.zero_()

    def state(self) -> dict[str, Tensor]:
        """Adam's tensors by `parameter.key`; they are the optimiser's own, so writing into them restores it."""
        return {f"{n}.{k}": v for n, p in self.parameters.items() for k, v in self.adam.state[p].items()}

    def gradient_norms(self, phase: str) -> dict[str, Tensor]:
        """L2 norm of each parameter's gradient, scalars; gathered if they are sharded.

        Raises:
            ValueError: if no parameter has a gradient.
        """
        gradients = {name: p.grad for name, p in self.parameters.items() if p.grad is not None}
        if not gradients:
            raise ValueError(f"phase {phase!r} trains {self.name!r}, but its loss does not depend on that network")
        norms = full_tensor(torch.stack(torch._foreach_norm(list(gradients.values()))))  # pyright: ignore
        return dict(zip(gradients, norms.unbind(), strict=True))

    def clip(self, norm: Tensor) -> None:
        """Scales the gradient, whose norm is given, down to the settings' norm."""
        if self.config.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(list(self.parameters.values()), self.config.clip, norm)

    def update(self, found_inf: Tensor) -> None:
        """One optimiser step, or none where `found_inf` (float32 scalar) is 1; then the gradients are forgotten.

        Nobody waits to know which. Fused kernels read the flag themselves, as under `torch.amp.GradScaler`; another
        optimiser's parameters are put back (its moments are not, but a run does not go on after such a step).
        """
        adam: Any = self.adam
        if adam.defaults.get("fused"):
            adam.grad_scale, adam.found_inf = None, found_inf
            adam.step()
        else:
            before = [local(p).clone() for p in self.parameters.values()]
            adam.step()
            for p, kept in zip(self.parameters.values(), before, strict=True):
                local(p).copy_(torch.where(found_inf.bool(), kept, local(p)))
        adam.zero_grad(set_to_none=True)


def local(p: nn.Parameter) -> Tensor:
    """This rank's part of a parameter, sharing its memory."""
    return p.to_local().detach() if isinstance(p, DTensor) else p.detach()


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """L2 norm over all tensors, a scalar; gathered where they are sharded."""
    return full_tensor(torch.nn.utils.get_total_norm(tensors))


def build_optimizer(network: nn.Module, config: OptimConfig, name: str) -> NetworkOptimizer:
    """The optimizer over the parameters that require gradients now; those that do not stay frozen for the whole run.

    Raises:
        UserError: if nothing requires gradients.
    """
    parameters = {n: p for n, p in network.named_parameters() if p.requires_grad}
    if not parameters:
        raise UserError(f"network {name!r}: no parameter requires gradients, so there is nothing to train")
    fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters.values())
    adam: AdamW | RAdam
    if config.algorithm == "radam":  # torch has no fused kernels for it
        fused = False
        adam = RAdam(parameters.values(), lr=config.lr, betas=config.betas, eps=config.eps,
                     weight_decay=config.weight_decay, decoupled_weight_decay=True)  # fmt: skip
    else:
        adam = AdamW(parameters.values(), lr=config.lr, betas=config.betas, eps=config.eps,
                     weight_decay=config.weight_decay, fused=fused)  # fmt: skip
    for p in parameters.values():
        adam.state[p] = {
            "step": torch.zeros((), dtype=torch.float32, device=p.device if fused else "cpu"),
            "exp_avg": torch.zeros_like(p, memory_format=torch.preserve_format),
            "exp_avg_sq": torch.zeros_like(p, memory_format=torch.preserve_format),
        }
    return NetworkOptimizer(name, parameters, adam, config)
