"""LPIPS from the files that a recipe names, and their hashes for the run's record."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from unistep.api.runs import record
from unistep.losses.lpips import VGGMetric
from unistep.networks.state_dict import load_strictly
from unistep.networks.weights_file import read_weights
from unistep.training.distributed import on_main

KEY = "method.lpips_weights"
EXPECTED = "VGG16 (torchvision's vgg16-397923af.pth) and LPIPS's layers (vgg.pth of its v0.1), or one file with both"
CLASSIFIER = "classifier."  # of VGG16, which no feature map needs


def lpips_of_files(files: Sequence[str], folder: Path | None) -> VGGMetric:
    """The metric with the weights in these files together; run.json in `folder` says which they were.

    Raises:
        UserError: for a missing or unreadable file, or files that do not make up the metric.
    """
    state: dict[str, Tensor] = {}
    hashes: dict[str, str] = {}
    for file in files:
        tensors, hashes[file] = read_weights(Path(file), KEY, EXPECTED)
        state |= {name: value for name, value in tensors.items() if not name.startswith(CLASSIFIER)}
    metric = VGGMetric()
    load_strictly(metric, state, f"{KEY}: {', '.join(files)}")
    if folder is not None:
        on_main(lambda: record(folder, lpips_weights=hashes))
    return metric
