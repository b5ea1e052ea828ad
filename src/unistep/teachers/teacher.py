"""The teacher: a frozen record of a denoiser and everything needed to sample it, train against it and judge it."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from unistep.diffusion.guidance import GuidedDenoiser
from unistep.diffusion.prediction import Prediction
from unistep.diffusion.process.base import NoiseProcess
from unistep.errors import UserError
from unistep.networks.precision import HALF
from unistep.types import Cond


class Conditioner(Protocol):
    """Turns labels into conditions; for teachers that read text a label is the index of a prompt."""

    @property
    def names(self) -> tuple[str, ...]:
        """Readable name of each class, or the prompts."""
        ...

    def labels(self, seeds: Tensor) -> Tensor:
        """Which class or prompt each seed has, [b] int64 -> [b] int64: a pure function of the seed."""
        ...

    def from_seeds(self, seeds: Tensor) -> Cond:
        """The condition of each seed, `from_labels(labels(seeds))`: uniform over classes or prompts."""
        ...

    def from_labels(self, labels: Tensor) -> Cond:
        """Class (or prompt) indices [b] -> cond; -1 is "no condition"."""
        ...

    def null(self, rows: int) -> Cond:
        """The condition that means "no condition", for guidance."""
        ...

    def config(self) -> dict[str, Any]:
        """Plain values that describe the conditioner."""
        ...


class Codec(Protocol):
    """Model space <-> what is looked at: pixels in [-1, 1] <-> 8-bit images."""

    def encode(self, images: Tensor) -> Tensor:
        """uint8 [b, c, h, w] -> model space [b, *dims]."""
        ...

    def decode(self, x: Tensor) -> Tensor:
        """Model space [b, *dims] -> uint8 [b, c, h, w], clamped and rounded (points: returned unchanged)."""
        ...

    def config(self) -> dict[str, Any]:
        """Plain values that describe the codec."""
        ...


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A frozen teacher.

    Attributes:
        denoiser: mu_base, module (x_t [b, *dims], t [b], cond) -> E[x_0 | x_t], [b, *dims]; in eval mode, no gradients.
        process: the noise process whose times the denoiser understands.
        weighting: Eq. 6's weight as the teacher was trained, t [b] -> [b].
        shape: dims of one sample.
        conditioner: labels -> condition, or None for an unconditional teacher.
        codec: model space <-> images.
        source: where it came from, readable.
        sha256: hash of weights and configuration; identifies the teacher in pair manifests and reports.
        config: what rebuilds a trainable network of the same class, or {} when only a deep copy can.
    """

    denoiser: nn.Module
    process: NoiseProcess
    weighting: Callable[[Tensor], Tensor]
    shape: tuple[int, ...]
    codec: Codec
    source: str
    sha256: str
    conditioner: Conditioner | None = None
    config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.denoiser.eval().requires_grad_(False)

    @classmethod
    def from_module(
        cls, network: nn.Module, process: NoiseProcess | str, prediction: Prediction, shape: tuple[int, ...],
        **options: Any,
    ) -> "Teacher":  # fmt: skip
        """A teacher from your own network; see `teachers.module.teacher_from_module` for the options."""
        from unistep.teachers.module import teacher_from_module  # the border knows this record, not the reverse

        return teacher_from_module(network, process, prediction, shape, **options)

    def image_shape(self) -> tuple[int, ...]:
        """Dims of one sample as an image, which a VAE says by decoding one."""
        return tuple(self.codec.decode(torch.zeros(1, *self.shape)).shape[1:])

    def guided(self, scale: float) -> GuidedDenoiser:
        """mu_base under classifier-free guidance of scale w, 1 = off; gradients pass to x_t.

        Raises:
            UserError: for guidance of a teacher without conditions.
        """
        if self.conditioner is None:
            if scale != 1:
                raise UserError(f"guidance: found {scale:g}, expected 1: the teacher takes no conditions")
            return GuidedDenoiser(self.denoiser, no_condition, 1.0)
        return GuidedDenoiser(self.denoiser, self.conditioner.null, scale)

    def trainable_copy(self) -> nn.Module:
        """A copy of the denoiser with gradients on and dropout off, the start of generator and fake score.

        It is in float32 where the teacher is in half precision, which would round small updates away.
        """
        network = copy.deepcopy(self.denoiser).eval().requires_grad_(True)
        return network.float() if any(p.dtype in HALF for p in network.parameters()) else network

    @torch.no_grad()
    def __call__(self, x_t: Tensor, t: Tensor, cond: Cond = None) -> Tensor:
        """mu_base(x_t, t, cond), without gradients."""
        return self.denoiser(x_t, t, cond)


def no_condition(rows: int) -> Cond:
    """The condition of a teacher that takes none."""
    return None
