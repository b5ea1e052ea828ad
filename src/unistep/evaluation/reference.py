"""What samples are compared with: features of real images one by one, and moments over all of them."""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unistep.data.dataset import ImageDataset
from unistep.data.images import shuffled_rows
from unistep.errors import UserError, one_line
from unistep.evaluation.metrics.frechet import FeatureMoments
from unistep.networks.weights_file import file_sha256

Split = Literal["train", "test"]
STORED = ("features", "labels", "mean", "cov", "count")
ONE_BY_ONE = 10_000  # images whose features are kept, for metrics that need neighbours
UNREADABLE = (
    OSError, ValueError, LookupError, EOFError, TypeError, RuntimeError, MemoryError, BadZipFile, zlib.error,
)  # fmt: skip  # what numpy's and zipfile's readers raise on damaged files
STATISTICS = "reference statistics as EDM publishes them, an .npz with mu and sigma"


@dataclass(frozen=True)
class ReferenceFeatures:
    """Real images as the judge sees them.

    Attributes:
        features: float32 [m, d] of m of the images (stored as float16), shuffled: the first n are a fair sample,
            also of images that were sorted by class. None where only moments are known.
        labels: int64 [m]; -1 = none.
        mean: float64 [d] over all `count` images, not only the m stored.
        cov: float64 [d, d], unbiased, over all `count` images.
        count: number of images behind mean and cov; None where a file does not say.
        source: where the images are from, in words; empty where the judge brings them.
        sha256: of the file that holds all this; empty where there is none.
    """

    features: Tensor
    labels: Tensor
    mean: NDArray[np.float64]
    cov: NDArray[np.float64]
    count: int | None
    source: str = ""
    sha256: str = ""


def reference_of(features: Tensor, labels: Tensor, stored: int = ONE_BY_ONE) -> ReferenceFeatures:
    """Reference of all features [n, d], of which `stored` are kept one by one (rounded to float16)."""
    every = features.double().numpy()
    rows = shuffled_rows(len(every))[:stored]
    mean, cov = every.mean(0), np.atleast_2d(np.cov(every, rowvar=False))
    return ReferenceFeatures(features[rows].half().float(), labels[rows], mean, cov, len(every))


def reference_from_images(
    see: Callable[[Tensor], Tensor],
    data: ImageDataset,
    stored: int = ONE_BY_ONE,
    batch: int = 100,
    on_progress: Callable[[int], None] = lambda done: None,
) -> ReferenceFeatures:
    """Reference of a set of images larger than its features may be.

    Args:
        see: uint8 images [b, c, h, w] -> features float32 [b, d].
        data: the images.
        stored: as many are kept one by one (rounded to float16), drawn by a fixed seed so that no class is left out.
        batch: images seen at once.
        on_progress: called with the number of images seen.
    """
    rows = shuffled_rows(len(data))[:stored]
    kept_rows = torch.zeros(len(data), dtype=torch.bool)
    kept_rows[rows] = True
    moments, kept, done = FeatureMoments(), list[Tensor](), 0
    for images, chosen in zip(data.images.split(batch), kept_rows.split(batch), strict=True):
        features = see(images)
        moments.update(features)
        kept.append(features[chosen].half().float())
        done += len(images)
        on_progress(done)
    labels = torch.full((len(data),), -1) if data.labels is None else data.labels
    order = rows.argsort().argsort()  # of each drawn row among those kept, which are in the order of the data
    return ReferenceFeatures(torch.cat(kept)[order], labels[rows], moments.mean, moments.cov, moments.count)


def reference_from_statistics(path: Path) -> ReferenceFeatures:
    """Moments alone, from `mu` [d] and `sigma` [d, d] of an .npz file: only the Frechet distance can be computed.

    Raises:
        UserError: for a missing, unreadable or foreign file.
    """
    digest = file_sha256(path, "evaluation.reference", STATISTICS)
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            mean, cov = (np.asarray(file[name], np.float64) for name in ("mu", "sigma"))
    except UNREADABLE as error:
        raise UserError(f"evaluation.reference: {path} is none ({one_line(error)}), expected {STATISTICS}") from error
    if (
        mean.ndim != 1
        or cov.shape != (len(mean), len(mean))
        or not np.isfinite(cov).all()
        or not np.isfinite(mean).all()
    ):
        raise UserError(
            f"evaluation.reference: {path}: found mu {list(mean.shape)} and sigma {list(cov.shape)}, expected finite "
            "numbers [d] and [d, d]"
        )
    nothing = torch.empty(0, len(mean)), torch.empty(0, dtype=torch.int64)
    return ReferenceFeatures(*nothing, mean, cov, None, source=path.name, sha256=digest)


def pack_reference(reference: ReferenceFeatures) -> dict[str, Tensor]:
    """As stored: float16 features, uint8 labels (int64 where these do not fit), float64 moments."""
    labels = reference.labels
    few = len(labels) > 0 and 0 <= int(labels.min()) <= int(labels.max()) < 256
    return {
        "features": reference.features.half(),
        "labels": labels.to(torch.uint8 if few else torch.int64),
        "mean": torch.from_numpy(reference.mean),
        "cov": torch.from_numpy(reference.cov),
        "count": torch.tensor(reference.count),
    }


def unpack_reference(tensors: Mapping[str, Tensor], split: str, sha256: str, source: str = "") -> ReferenceFeatures:
    """The inverse of `pack_reference`, out of the tensors of a file of that sha256."""
    features, labels, mean, cov, count = (tensors[f"{split}.{name}"] for name in STORED)
    return ReferenceFeatures(
        features.float(), labels.long(), mean.numpy(), cov.numpy(), int(count), source=source, sha256=sha256
    )  # fmt: skip
