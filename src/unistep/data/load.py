"""`load_images(config)`: the one door through which images come in."""

from collections.abc import Callable
from dataclasses import replace

from unistep.data.cifar import load_cifar
from unistep.data.config import DataConfig, Kind
from unistep.data.dataset import ImageDataset
from unistep.data.digits import load_digits
from unistep.data.folder import load_folder
from unistep.data.hub import load_hub
from unistep.data.idx import load_idx
from unistep.data.parquet import load_parquet
from unistep.errors import UserError

READERS: dict[Kind, Callable[[DataConfig], ImageDataset]] = {
    "folder": load_folder,
    "idx": load_idx,
    "parquet": load_parquet,
    "datasets": load_hub,
    "cifar": load_cifar,
    "digits": load_digits,
}


def load_images(config: DataConfig) -> ImageDataset:
    """All images of a configuration, in memory, in an order that depends on nothing but the files.

    Raises:
        UserError: naming the file or field that is at fault.
    """
    dataset = READERS[config.kind](config)
    if config.names and dataset.labels is None:
        raise UserError(f"data.names: found {len(config.names)} names, expected none: these images have no labels")
    if dataset.labels is not None and int(dataset.labels.max()) >= dataset.num_classes:
        highest = int(dataset.labels.max())
        raise UserError(
            f"data.names: {dataset.num_classes} names, expected at least {highest + 1}: a label is {highest}"
        )
    return dataset if config.labels != "none" else replace(dataset, labels=None, names=())
