"""The end of a training: stopped, or exported as a checkpoint folder with the averaged weights."""

import copy
from pathlib import Path
from typing import Any

from torch import nn

from unistep.teachers.checkpoint import save_denoiser
from unistep.training.distributed import on_main
from unistep.training.loop import TrainResult


def export_average(result: TrainResult, network: nn.Module, folder: Path, config: dict[str, Any]) -> None:
    """Writes the averaged weights (the last ones where no average is kept) of a finished training.

    Raises:
        KeyboardInterrupt: if the training was stopped before its end.
    """
    if result.stopped == "signal":
        raise KeyboardInterrupt
    exported = copy.deepcopy(network)
    if result.ema is not None:
        exported.load_state_dict(result.ema.state_dict())
    on_main(lambda: save_denoiser(folder, exported, config))
