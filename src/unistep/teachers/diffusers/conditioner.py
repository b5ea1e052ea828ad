"""Prompts as conditions: row i's prompt is a pure function of its seed, its embeddings come from a table."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unistep.errors import UserError
from unistep.teachers.diffusers.embeddings import Embeddings, open_embeddings
from unistep.types import Cond


@dataclass(frozen=True)
class TextConditioner:
    """Prompts 0..n-1 as named tensors; -1 is "no condition".

    Attributes:
        embeddings: of the prompts and of "no condition".
        names: the prompts.
        sha256: over text encoders, tokenizers and prompts.
        folder: where the embeddings are kept, None for nowhere.
        first: the seed of prompt 0.
    """

    embeddings: Embeddings
    names: tuple[str, ...]
    sha256: str
    folder: str | None = None
    first: int = 0

    @classmethod
    def open(cls, folder: str | None, sha256: str) -> "TextConditioner":
        """From a folder of embeddings.

        Raises:
            UserError: for a folder that is missing, damaged or another one, or embeddings that were kept nowhere.
        """
        if folder is None:
            raise UserError("conditioner.folder: found none: the embeddings of its prompts were in memory only")
        embeddings, prompts, key = open_embeddings(Path(folder), sha256)
        return cls(embeddings, prompts, key, folder)

    def labels(self, seeds: Tensor) -> Tensor:
        """The prompt of each seed, (seed - first) mod n: each equally often over any run of consecutive seeds."""
        return (seeds.to(torch.int64) - self.first) % len(self.names)

    def from_seeds(self, seeds: Tensor) -> Cond:
        """Embeddings of each seed's prompt."""
        return self.from_labels(self.labels(seeds))

    def from_labels(self, labels: Tensor) -> Cond:
        """Embeddings of prompts by index [b].

        Raises:
            UserError: for an index outside -1..n-1.
        """
        bad = labels[(labels < -1) | (labels >= len(self.names))]
        if len(bad):
            raise UserError(f"prompt: found {int(bad[0])}, expected 0..{len(self.names) - 1} (or -1 for no condition)")
        return self.embeddings.rows(labels)

    def null(self, rows: int) -> Cond:
        """`rows` times "no condition"."""
        return self.embeddings.rows(torch.full((rows,), -1))

    def config(self) -> dict[str, Any]:
        return {"type": "text", "sha256": self.sha256, "folder": self.folder}
