"""LoRA by peft: a frozen denoiser whose weights others share, with a low-rank adapter of its own (arXiv:2106.09685)."""

import copy
import re
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from unistep.errors import UserError, one_line
from unistep.io.optional import import_optional
from unistep.types import Cond

NAME = "default"  # of the adapter inside peft; each network has one


class LoRAConfig(BaseModel):
    """Which layers W become W + (alpha / rank) B A, with B = 0 at first.

    `target_modules` are names of linear layers or convolutions, or what those names end with after a dot; None = what
    suits the teacher's family. There is no dropout: a distillation runs its networks without.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rank: int = Field(default=16, ge=1, le=65_536)
    alpha: float = Field(default=16.0, gt=0)
    target_modules: tuple[str, ...] | None = Field(default=None, min_length=1)


class Adapted(nn.Module):
    """A denoiser with an adapter; its parameters, and its state, are the adapter's alone.

    The denoiser itself is kept out of torch's sight: whoever trains, averages, saves or replicates this module does so
    with the adapter, whose parameters have their names in the denoiser (`network.mid.to_q.lora_A.weight`).

    Args:
        denoiser: (x_t, t, cond) -> x_0, whose `network` gets the adapter; frozen and changed in place. Give a
            `sharing_copy` where others use it, too.
        lora: with its target modules named.
        seed: of A's initial values.

    Raises:
        UserError: if peft is not installed, or the target modules are none of the network's.
    """

    denoiser: Any
    tuner: Any

    def __init__(self, denoiser: nn.Module, lora: LoRAConfig, seed: int):
        super().__init__()
        tuner = injected(denoiser, lora, seed)
        object.__setattr__(self, "denoiser", denoiser)
        object.__setattr__(self, "tuner", tuner)
        self.denoiser.adapted = True
        for name, parameter in denoiser.named_parameters():
            if parameter.requires_grad:
                plant(self, name.replace(f".{NAME}.", "."), parameter)

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond = None) -> Tensor:
        return self.denoiser(x_t, t, cond)

    def enable_gradient_checkpointing(self) -> None:
        """As the networks of diffusers have it."""
        enable = getattr(self.denoiser.network, "enable_gradient_checkpointing", None)
        if enable is None:
            raise ValueError(f"{type(self.denoiser.network).__name__} has none")
        enable()

    def merged(self) -> nn.Module:
        """The denoiser as it was, frozen, with B A added to its weights; shared weights change for all who share them.

        This module is of no use afterwards.
        """
        self.tuner.merge_and_unload()
        self.denoiser.adapted = False
        return self.denoiser.requires_grad_(False)

    def _apply(self, fn: Any, recurse: bool = True) -> "Adapted":
        """`to` and its kin move the denoiser, too; the adapter's parameters are part of it."""
        self.denoiser._apply(fn, recurse)
        return super()._apply(fn, recurse)


def sharing_copy(denoiser: nn.Module) -> Any:
    """A copy of all modules around the very same parameters and buffers: the weights are in memory once."""
    shared = {id(tensor): tensor for tensor in (*denoiser.parameters(), *denoiser.buffers())}
    return copy.deepcopy(denoiser, shared)


def injected(denoiser: Any, lora: LoRAConfig, seed: int) -> Any:
    """peft's tuner around the denoiser's network, whose layers it has put adapters on: float32, all else frozen.

    Layers on which the prediction does not depend (`denoiser.idle`) get none.
    """
    peft, config = import_peft(), peft_config(denoiser, lora)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            tuner = peft.LoraModel(denoiser.network.requires_grad_(False), config, NAME)
        except ValueError as error:
            found = list(lora.target_modules or ())
            raise UserError(f"lora.target_modules: found {found}: {one_line(error)}") from error
    peft.functional.cast_adapter_dtype(denoiser.network, NAME)
    return tuner


def peft_config(denoiser: Any, lora: LoRAConfig) -> Any:
    """The settings in peft's own words."""
    idle = getattr(denoiser, "idle", ())
    return import_peft().LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=list(lora.target_modules or ()),
        exclude_modules="|".join(f"{re.escape(name.rstrip('.'))}([.].*)?" for name in idle) or None,
    )


def plant(root: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Registers a parameter under a dotted name, with empty modules on the way to it."""
    *path, leaf = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    root.register_parameter(leaf, parameter)


def import_peft() -> Any:
    """The library, imported when it is needed.

    Raises:
        UserError: if it is not installed.
    """
    import_optional("peft.functional", "lora")
    return import_optional("peft", "lora")
