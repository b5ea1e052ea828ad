"""A judge for tests: images are their own features, classes are told by the first pixel."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor


class FakeReference(NamedTuple):
    features: Tensor
    labels: Tensor
    mean: NDArray[np.float64]
    cov: NDArray[np.float64]
    count: int
    source: str = ""
    sha256: str = ""


class FakeJudge:
    """Images uint8 [n, 1, 2, 2]: features are the pixels over 64, the class is the first pixel modulo 4."""

    title, sha256, distance = "the first pixel", "f" * 64, "FD"
    accuracy = 0.875

    @staticmethod
    def sample(seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Images of the same source as the reference."""
        return images_of(seeds)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        classes = images[:, 0, 0, 0].long() % 4
        return images.flatten(1).float() / 64, torch.nn.functional.one_hot(classes, 4).float()

    def reference(self, split: str) -> FakeReference:
        images, labels = images_of(torch.arange(2000) + (10_000 if split == "train" else 20_000))
        features = self.features(images)[0]
        rows = features.double().numpy()
        return FakeReference(features, labels, rows.mean(0), np.cov(rows, rowvar=False), len(rows))


def images_of(seeds: Tensor) -> tuple[Tensor, Tensor]:
    """Random images whose first pixel says their class (asked for: seed modulo 4), a pure function of each seed."""
    rows = [torch.randint(0, 63, (1, 2, 2), generator=torch.Generator().manual_seed(int(s))) for s in seeds]
    images, labels = torch.stack(rows) * 4, seeds % 4
    images[:, 0, 0, 0] += labels
    return images.to(torch.uint8), labels


@pytest.fixture(scope="session")
def judge() -> FakeJudge:
    return FakeJudge()
