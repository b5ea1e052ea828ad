"""The contracts of judging: what is seen of samples, what a judge offers, what a metric does with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unistep.errors import UserError


class Reference(Protocol):
    """Real images as a judge sees them: some features one by one, and moments over all images."""

    @property
    def features(self) -> Tensor:
        """float32 [m, d]."""
        ...

    @property
    def labels(self) -> Tensor:
        """int64 [m]."""
        ...

    @property
    def mean(self) -> NDArray[np.float64]:
        """float64 [d] over all `count` images."""
        ...

    @property
    def cov(self) -> NDArray[np.float64]:
        """float64 [d, d], unbiased, over all `count` images."""
        ...

    @property
    def count(self) -> int | None:  # type: ignore[override]
        """Number of images behind mean and cov, at least m; None where it is not known."""
        ...

    @property
    def source(self) -> str:
        """Where the images are from, in words; empty where the judge brings them."""
        ...

    @property
    def sha256(self) -> str:
        """Of the file that holds all this; empty where there is none."""
        ...


class ImageJudge(Protocol):
    """What `Judge`, a classifier of the data, and `FeatureJudge`, which is none, offer to the metrics."""

    @property
    def title(self) -> str:
        """Readable name."""
        ...

    @property
    def sha256(self) -> str:
        """Names the judge beside a number."""
        ...

    @property
    def distance(self) -> str:
        """What the Frechet distance in its features is called: FID only in features of FID's own network."""
        ...

    @property
    def accuracy(self) -> float | None:
        """Share of held-out real images that it classifies rightly: the ceiling of class agreement.

        None for a judge that tells no classes apart.
        """
        ...

    def features(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """uint8 [n, c, h, w] -> features [n, d], and logits [n, k] or None."""
        ...

    def reference(self, split: Literal["train", "test"]) -> Reference:
        """Real images: what generators learnt from, or held out."""
        ...


@dataclass(frozen=True, kw_only=True)
class Observed:
    """n samples as the metrics see them.

    Attributes:
        features: float32 [n, d], holding values of float16: what is stored and what is computed are judged alike.
        labels: int64 [n], the class asked for; -1 = none.
        predicted: int64 [n], the class that the judge sees; -1 = it tells none apart.
        images: uint8 [n, c, h, w], or None where features come from a file.
        alignment: float32 [n], how well each fits its prompt, or None where nobody asked.
    """

    features: Tensor
    labels: Tensor
    predicted: Tensor
    images: Tensor | None = None
    alignment: Tensor | None = None

    def __len__(self) -> int:
        return len(self.features)

    def head(self, count: int) -> "Observed":
        """The first `count` samples, without their images."""
        fitting = None if self.alignment is None else self.alignment[:count]
        return Observed(
            features=self.features[:count], labels=self.labels[:count], predicted=self.predicted[:count],
            alignment=fitting,
        )  # fmt: skip

    @classmethod
    def join(cls, parts: "list[Observed]") -> "Observed":
        """Several in their order, without their images."""
        fitting = [p.alignment for p in parts if p.alignment is not None]
        return cls(
            features=torch.cat([p.features for p in parts]),
            labels=torch.cat([p.labels for p in parts]),
            predicted=torch.cat([p.predicted for p in parts]),
            alignment=torch.cat(fitting) if fitting else None,
        )


class Metric(Protocol):
    """Sees samples batch by batch; metrics of several ranks merge into one (in the order of the seeds)."""

    name: str

    @property
    def needed(self) -> int:
        """Fewest samples it makes figures of."""
        ...

    @property
    def real_needed(self) -> int:
        """Fewest real images whose features the reference must hold one by one; 0 = moments or nothing will do."""
        ...

    def update(self, seen: Observed) -> None:
        """Takes in a batch."""
        ...

    def merge(self, other: Self) -> None:
        """Takes in what another metric of the same kind has seen."""
        ...

    def compute(self) -> dict[str, float]:
        """Figures by name.

        Raises:
            UserError: for too few samples; names the metric, the number found and the number needed.
        """
        ...

    def settings(self) -> Mapping[str, Any]:
        """What the figures depend on besides the samples: seeds, neighbours, sizes."""
        ...


class TooFewSamplesError(UserError):
    """A metric has seen too few samples to give a number."""


def require_samples(metric: str, found: int, needed: int, why: str) -> None:
    """Refuses to make a number of too few samples.

    Raises:
        TooFewSamplesError: when fewer were found than needed.
    """
    if found < needed:
        raise TooFewSamplesError(
            f"{metric}: found {found} samples, needed at least {needed} ({why}); "
            "ask for more samples or leave the metric out"
        )
