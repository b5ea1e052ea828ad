"""Bytes of what a training holds from step to step, and of its checkpoints: from shapes, so meta tensors will do."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unistep.costing.kinds import StepKind
from unistep.methods.base import Method
from unistep.training.config import TrainingConfig
from unistep.training.distributed import unwrap

FLOAT = 4
MOMENTS = 2  # of Adam, float32 each
ENTRY = 300  # bytes that describe a tensor (name, shape, place) in a checkpoint and its manifest


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Bytes that do not depend on the batch.

    Attributes:
        networks: weights (buffers included) of each network that learns.
        carried: of those that follow them.
        frozen: weights of those that do not: teacher, perceptual network.
        gradients: of the phase that has most.
        moments: Adam's.
        average: of the averaged network's parameters; 0 without one.
        tensors: in a checkpoint, those of the average left out.
        averaged_tensors: those of the average.
        exported: weights of the network that is averaged and exported.
    """

    networks: Mapping[str, int]
    carried: int
    frozen: int
    gradients: int
    moments: int
    average: int
    tensors: int
    averaged_tensors: int
    exported: int

    @property
    def held(self) -> int:
        """All of it, in memory."""
        return self.learnt + self.frozen + self.gradients

    @property
    def learnt(self) -> int:
        """What goes on from step to step: the networks that learn or follow, the moments, the average."""
        return sum(self.networks.values()) + self.carried + self.moments + self.average

    @property
    def checkpoint(self) -> int:
        """One checkpoint."""
        return self.learnt + self.described

    @property
    def described(self) -> int:
        """What names and describes the tensors of a checkpoint."""
        return ENTRY * (self.tensors + self.averaged_tensors)

    def without_average(self) -> "Sizes":
        """The sizes where no average is kept."""
        return replace(self, average=0, averaged_tensors=0)

    def sharded(self, ranks: int) -> "Sizes":
        """What one of several ranks holds where FSDP cuts the networks that learn into pieces."""
        parts = {name: size // ranks for name, size in self.networks.items()}
        return replace(
            self, networks=parts, carried=self.carried // ranks, gradients=self.gradients // ranks,
            moments=self.moments // ranks, average=self.average // ranks,
        )  # fmt: skip


def sizes_of(
    method: Method, config: TrainingConfig, kinds: Sequence[StepKind], frozen: Iterable[nn.Module] = ()
) -> Sizes:
    """The sizes of a method under a training's settings.

    Args:
        method: with its networks on any device, before any step.
        config: the settings.
        kinds: of its steps.
        frozen: networks that are there besides: the teacher, what a distance looks through.
    """
    networks = {name: unwrap(network) for name, network in method.networks.items()}
    carried = [unwrap(network) for network in method.auxiliary_networks.values()]
    trained = {name: nbytes(trainable(network)) for name, network in networks.items()}
    averaged = networks[method.ema_network]
    stored = sum(len(network.state_dict()) for network in [*networks.values(), *carried])
    return Sizes(
        networks={name: nbytes(state(network)) for name, network in networks.items()},
        carried=nbytes(tensor for network in carried for tensor in state(network)),
        frozen=nbytes({id(tensor): tensor for network in frozen for tensor in state(network)}.values()),
        gradients=max(sum(trained[name] for name in phase.trains) for kind in kinds for phase in kind.phases),
        moments=MOMENTS * sum(trained.values()),
        average=FLOAT * sum(p.numel() for p in averaged.parameters()) if config.ema else 0,
        tensors=stored + 3 * sum(len(trainable(network)) for network in networks.values()),
        averaged_tensors=len(list(averaged.parameters())) if config.ema else 0,
        exported=nbytes(state(averaged)),
    )


def state(network: nn.Module) -> list[Tensor]:
    """Parameters and buffers."""
    return [*network.parameters(), *network.buffers()]


def trainable(network: nn.Module) -> list[nn.Parameter]:
    """What an optimiser would be given."""
    return [p for p in network.parameters() if p.requires_grad]


def nbytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the elements."""
    return sum(t.numel() * t.element_size() for t in tensors)


def allocated(network: nn.Module) -> int:
    """Bytes that a network takes where it is: none on the meta device."""
    return nbytes(tensor for tensor in state(network) if not tensor.is_meta)
