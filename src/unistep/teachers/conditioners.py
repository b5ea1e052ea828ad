"""Conditioners: class labels to what a denoiser is conditioned on, and its "no condition"."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unistep.errors import UserError
from unistep.io.arguments import require_arguments, require_choice

if TYPE_CHECKING:
    from unistep.teachers.diffusers.conditioner import TextConditioner

NO_NULL = (
    "label: found no class, expected one: this network knows no `no class`, so guidance must be 1 (if its last class "
    "is meant, load the teacher with null_class: true)"
)


CONDITIONERS = ("labels", "captions", "text")
"""The types that a configuration can name."""


@dataclass(frozen=True)
class LabelConditioner:
    """Class labels 0..num_classes-1 as int64 tensors; -1 is "no class".

    Attributes:
        num_classes: number of classes.
        names: readable class names, in order; numbers where none are known.
        has_null: whether the network knows "no class".
    """

    num_classes: int
    names: tuple[str, ...] = ()
    has_null: bool = True

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise UserError(f"conditioner.num_classes: found {self.num_classes}, expected 1 or more")
        if not self.names:
            object.__setattr__(self, "names", tuple(str(i) for i in range(self.num_classes)))
        if len(self.names) != self.num_classes:
            raise UserError(
                f"conditioner.names: found {len(self.names)} names, expected {self.num_classes}, one per class"
            )

    def labels(self, seeds: Tensor) -> Tensor:
        """The class of each seed, seed mod num_classes: exactly balanced over any run of consecutive seeds."""
        return seeds.to(torch.int64) % self.num_classes

    def from_seeds(self, seeds: Tensor) -> Tensor:
        """The class of each seed as a condition."""
        return self.labels(seeds)

    def from_labels(self, labels: Tensor) -> Tensor:
        """Class indices [b] as a condition.

        Raises:
            UserError: for a label outside -1..num_classes-1, or -1 where the network knows no "no class". Labels are
                checked here, before they are uploaded, because a check in the network would wait for the device.
        """
        if not self.has_null and bool((labels < 0).any()):
            raise UserError(NO_NULL)
        bad = labels[(labels < -1) | (labels >= self.num_classes)]
        if len(bad):
            raise UserError(f"label: found {int(bad[0])}, expected 0..{self.num_classes - 1} (or -1 for no class)")
        return labels.to(torch.int64)

    def null(self, rows: int) -> Tensor:
        """`rows` times "no class".

        Raises:
            UserError: if the network knows none.
        """
        if not self.has_null:
            raise UserError(NO_NULL)
        return torch.full((rows,), -1, dtype=torch.int64)

    def config(self) -> dict[str, Any]:
        without = {} if self.has_null else {"has_null": False}
        return {"type": "labels", "num_classes": self.num_classes, "names": list(self.names), **without}


def conditioner_from_config(config: dict[str, Any] | None) -> "LabelConditioner | TextConditioner | None":
    """Rebuilds a conditioner from `config()`; None stays None.

    Raises:
        UserError: for an unknown type, or values that are missing or of another type.
    """
    if config is None:
        return None
    arguments = dict(config)
    kind = arguments.pop("type", None)
    if kind == "text":
        from unistep.teachers.diffusers.conditioner import TextConditioner  # which stands on this folder

        require_arguments(TextConditioner.open, arguments, "conditioner")
        return TextConditioner.open(**arguments)
    if kind == "captions":
        from unistep.teachers.diffusers.captions import captions_from_config

        require_arguments(captions_from_config, arguments, "conditioner")
        return captions_from_config(**arguments)
    require_choice(kind, CONDITIONERS, "conditioner.type")
    require_arguments(LabelConditioner, arguments, "conditioner")
    return LabelConditioner(**{**arguments, "names": tuple(arguments.get("names", ()))})
