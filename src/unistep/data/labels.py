"""Labels of a table to class indices."""

from typing import Any

import torch
from torch import Tensor

from unistep.data.config import DataConfig
from unistep.errors import UserError


def class_indices(labels: list[Any], config: DataConfig) -> tuple[Tensor, tuple[str, ...]]:
    """Labels as indices with the classes' names: whole numbers stay, text is numbered in the order of names."""
    if all(isinstance(label, int) and not isinstance(label, bool) for label in labels):
        if min(labels) < 0:
            raise UserError(
                f"data.label_column: found label {min(labels)} in {config.label_column!r}, expected 0 or more"
            )
        present = sorted(set(labels))
        if config.names and present[-1] >= len(config.names):
            raise UserError(
                f"data.names: {len(config.names)} names, expected at least {present[-1] + 1}: a label is {present[-1]}"
            )
        if not config.names and present[-1] >= len(present):
            absent = next(k for k, label in enumerate(present) if k != label)
            raise UserError(
                f"data.label_column: found labels up to {present[-1]} in {config.label_column!r} but none {absent}, "
                "expected every class 0..k-1; number them without gaps, or name all of them in data.names"
            )
        return torch.tensor(labels), config.names or tuple(str(k) for k in present)
    if not all(isinstance(label, str) for label in labels):
        found = type(labels[0]).__name__
        raise UserError(f"data.label_column: {config.label_column!r} holds {found}, expected whole numbers or text")
    names = config.names or tuple(sorted(set(labels)))
    if unknown := set(labels) - set(names):
        raise UserError(
            f"data.names: label {min(unknown)!r} of {config.label_column!r} is not among {', '.join(names)}"
        )
    index = {name: k for k, name in enumerate(names)}
    return torch.tensor([index[label] for label in labels]), names
