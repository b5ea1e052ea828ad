"""scikit-learn's bundled handwritten digits: 1,797 grey images of 8x8, nothing to download."""

import numpy as np
import torch

from unistep.data.config import DataConfig
from unistep.data.dataset import ImageDataset
from unistep.data.images import drawn_rows, fit_arrays

NUM_TRAIN = 1_200  # the other 597 are held out


def load_digits(config: DataConfig) -> ImageDataset:
    """The digits of one split (train by default), 0..16 stretched to 0..255; the splits are fixed by a seed."""
    from sklearn import datasets

    bunch = datasets.load_digits()  # pyright: ignore[reportAttributeAccessIssue]
    order = np.random.default_rng(0).permutation(len(bunch.images))  # pyright: ignore[reportAttributeAccessIssue]
    chosen = order[NUM_TRAIN:] if config.split == "test" else order[:NUM_TRAIN]
    chosen = chosen[drawn_rows(len(chosen), config.limit).numpy()]
    images = np.round(bunch.images[chosen] * (255 / 16)).astype(np.uint8)  # pyright: ignore[reportAttributeAccessIssue]
    labels = torch.from_numpy(bunch.target[chosen].astype(np.int64))  # pyright: ignore[reportAttributeAccessIssue]
    names = config.names or tuple(str(k) for k in range(10))
    return ImageDataset(images=fit_arrays(torch.from_numpy(images)[:, None], config), labels=labels, names=names)
