"""What is not finite stops the run and says where it arose: never applied, found out with one wait a step.

Whether a phase's terms, gradients and parameters are finite is worked out on the device, and the optimiser reads it
there and leaves its update out. So do the updates of the phases that follow. The flags of all phases are fetched
together when the step ends; the networks then still are as the last good update left them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unistep.errors import UserError
from unistep.training.distributed import any_rank, gather_objects, rank, reduce_max_
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
        gradients: network -> parameter -> L2 norm of its gradient, which outlives the gradient.
    """

    phase: str
    step: int
    terms: Mapping[str, Tensor]
    trained: Mapping[str, NetworkOptimizer]
    norms: Mapping[str, Tensor] = field(default_factory=dict)
    gradients: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)

    def found_inf(self) -> Tensor:
        """1 if anything is not finite on any rank, else 0: a float32 scalar on the device, as optimisers read it."""
        sums = [*self.norms.values(), *(total_norm(list(n.parameters.values())) for n in self.trained.values())]
        flags = [*self.terms.values(), *(torch.isfinite(s).all() for s in sums)]
        return reduce_max_((~torch.stack(flags).all()).float())


class FiniteCheck:
    """The check of one step."""

    def __init__(self) -> None:
        self.phases: list[tuple[PhaseValues, Tensor]] = []

    def note(self, values: PhaseValues) -> Tensor:
        """1 where the phase's update, or one before it in the step, must not be made; nobody waits for the number."""
        found_inf = values.found_inf()
        if self.phases:
            found_inf = torch.maximum(found_inf, self.phases[-1][1])
        self.phases.append((values, found_inf))
        return found_inf

    def require_finite(self) -> None:
        """Waits for the step's flags; stops on all ranks together if anything was not finite on any of them.

        Raises:
            NonFiniteError: for the first phase, naming the parameter, else the loss term, else the gradient.
        """
        flags = torch.stack([found_inf for _, found_inf in self.phases]).tolist()
        for (values, _), flag in zip(self.phases, flags, strict=True):
            if flag != 0:
                raise_named(gather_objects(first_culprit(values)), values)


def require_finite_parameters(networks: Mapping[str, NetworkOptimizer], step: int) -> None:
    """The same for all parameters, before they are saved."""
    values = PhaseValues("checkpoint", step, {}, networks)
    if any_rank(bool(values.found_inf()))[0]:
        raise_named(gather_objects(first_culprit(values)), values)


def first_culprit(values: PhaseValues) -> tuple[str, str] | None:
    """(what, network) on this rank; parameters first, for they spoil everything after them."""
    for network, optimizer in values.trained.items():
        for name, p in optimizer.parameters.items():
            if not is_finite(p):
                return f"parameter {name}", network
    for name, flag in values.terms.items():
        if not flag:
            return f"loss term {name}", "+".join(values.trained)
    for network, norms in values.gradients.items():
        for name, norm in norms.items():
            if not is_finite(norm):
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
