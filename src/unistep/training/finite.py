"""The check before every optimiser step: a value that is not finite stops the run and says where it arose."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unistep.errors import UserError
from unistep.training.distributed import any_rank, gather_objects, rank
from unistep.training.optim import NetworkOptimizer, total_norm


class NonFiniteError(UserError):
    """A loss term, gradient or parameter is nan or infinite; the optimiser step was not taken.

    Attributes:
        what: `loss term dm`, `gradient of out.weight` or `parameter out.weight`.
        network, phase: where; step: counted from 0; rank: the first rank that saw it.
    """

    def __init__(self, what: str, network: str, phase: str, step: int, rank: int):
        super().__init__(
            f"{what} is not finite: network {network}, phase {phase}, step {step}, rank {rank}; stopped before the "
            "optimiser step, the last checkpoint is valid; lower the learning rate or the clipping norm, or use "
            "precision fp32"
        )
        self.what, self.network, self.phase, self.step, self.rank = what, network, phase, step, rank

    def __reduce__(self) -> tuple[type["NonFiniteError"], tuple[str, str, str, int, int]]:
        return type(self), (self.what, self.network, self.phase, self.step, self.rank)


@dataclass(frozen=True)
class PhaseValues:
    """What one phase produced on this rank.

    Attributes:
        phase, step: which one.
        terms: name -> finite or not, a boolean scalar over all micro-batches.
        trained: the networks about to be stepped.
        norms: network -> L2 norm of its gradient.
    """

    phase: str
    step: int
    terms: Mapping[str, Tensor]
    trained: Mapping[str, NetworkOptimizer]
    norms: Mapping[str, Tensor]


def require_finite(values: PhaseValues) -> None:
    """Stops on all ranks together if anything is not finite on any of them.

    Raises:
        NonFiniteError: naming the parameter, else the loss term, else the gradient that came first.
    """
    sums = [*values.norms.values(), *(total_norm(list(n.parameters.values())) for n in values.trained.values())]
    flags = [flag.cpu() for flag in values.terms.values()] + [torch.isfinite(s).all().cpu() for s in sums]
    if any_rank(not bool(torch.stack(flags).all()))[0]:
        raise_named(gather_objects(first_culprit(values)), values)


def require_finite_parameters(networks: Mapping[str, NetworkOptimizer], step: int) -> None:
    """The same for all parameters, before they are saved."""
    require_finite(PhaseValues("checkpoint", step, {"saved": torch.tensor(True)}, networks, {}))


def first_culprit(values: PhaseValues) -> tuple[str, str] | None:
    """(what, network) on this rank; parameters first, for they spoil everything after them."""
    for network, optimizer in values.trained.items():
        for name, p in optimizer.parameters.items():
            if not is_finite(p):
                return f"parameter {name}", network
    for name, flag in values.terms.items():
        if not flag:
            return f"loss term {name}", "+".join(values.trained)
    for network, optimizer in values.trained.items():
        for name, p in optimizer.parameters.items():
            if p.grad is not None and not is_finite(p.grad):
                return f"gradient of {name}", network
    return None


def is_finite(tensor: Tensor) -> bool:
    """Whether this rank's part of a tensor is finite."""
    local = tensor.to_local() if hasattr(tensor, "to_local") else tensor  # type: ignore[operator]
    return bool(torch.isfinite(local).all())


def raise_named(culprits: list[tuple[str, str] | None], values: PhaseValues) -> None:
    """Raises for the first rank that found something; a sum alone can overflow without any culprit."""
    for index, culprit in enumerate(culprits):
        if culprit is not None:
            raise NonFiniteError(*culprit, values.phase, values.step, index)
    raise NonFiniteError("gradient norm", "+".join(values.trained), values.phase, values.step, rank())
