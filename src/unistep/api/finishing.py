"""The end of a training: stopped, or exported as a checkpoint folder with the averaged weights."""

from pathlib import Path
from typing import Any

from torch import nn

from unistep.teachers.checkpoint import save_denoiser
from unistep.teachers.checkpoint_config import random_denoiser
from unistep.training.distributed import full_tensor, on_main
from unistep.training.loop import TrainResult


def export_average(result: TrainResult, network: nn.Module, folder: Path, config: dict[str, Any]) -> None:
    """Writes the averaged weights (the last ones where no average is kept) of a finished training.

    Raises:
        KeyboardInterrupt: if the training was stopped before its end.
    """
    if result.stopped == "signal":
        raise KeyboardInterrupt
    exported = random_denoiser(config)  # not a copy: sharded networks cannot be copied
    last = network.state_dict() if result.ema is None else result.ema.state_dict()
    exported.load_state_dict({name: full_tensor(value) for name, value in last.items()})
    on_main(lambda: save_denoiser(folder, exported, config))
