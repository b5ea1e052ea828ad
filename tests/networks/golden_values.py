"""The golden files: what they hold, the rule that fills weights, and the configuration of their networks."""

import json
import math
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parent / "golden"
SMALL = tuple(sorted(path.stem for path in FOLDER.glob("*.npz")))
FULL = ("full-cifar10-32x32-cond-vp", "full-imagenet-64x64-cond-adm")
NETWORKS = {"SongUNet": "song_unet", "DhariwalUNet": "dhariwal_unet"}
PRECONDITIONINGS = {"EDMPrecond": "edm", "VPPrecond": "vp", "Precond": "edm"}


@dataclass(frozen=True)
class Golden:
    """One file: names and shapes of a network's tensors, and how it is built."""

    kind: str
    kwargs: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    num_parameters: int

    @property
    def edm2(self) -> bool:
        return self.kind == "Precond"

    @property
    def config(self) -> dict[str, Any]:
        """What `build_denoiser` takes."""
        network = {k: v for k, v in self.kwargs.items() if k not in ("model_type", "use_fp16", "sigma_data")}
        network["type"] = "edm2_unet" if self.edm2 else NETWORKS[self.kwargs["model_type"]]
        preconditioning: dict[str, Any] = {"type": PRECONDITIONINGS[self.kind]}
        if self.edm2:
            preconditioning["logvar_channels"] = 128
        return {"network": network, "process": {"type": "edm"}, "preconditioning": preconditioning}


@cache
def golden(name: str) -> Golden:
    held = json.loads((FOLDER / f"{name}.json").read_text())
    shapes = {key: tuple(shape) for key, shape in held["state_dict"].items()}
    return Golden(held["class"], held["kwargs"], shapes, held["num_parameters"])


def values(name: str) -> dict[str, Tensor]:
    """x, sigma, labels and denoised."""
    return {key: torch.from_numpy(value) for key, value in np.load(FOLDER / f"{name}.npz").items()}


def class_indices(labels: Tensor) -> Tensor | None:
    """One-hot rows as a condition; none where there are no rows."""
    return labels.argmax(1) if labels.numel() else None


def fill_by_rule(module: nn.Module, edm2: bool = False) -> None:
    """Weights as described in golden/README.md."""
    for name, parameter in module.named_parameters():
        w = torch.randn(parameter.shape, generator=generator(name))
        if not edm2 and w.ndim > 1:
            w = w / (w.numel() / w.shape[0]) ** 0.5
        elif not edm2:
            w = 0.1 * w + (1 if name.endswith(".weight") else 0)
        parameter.data = w
    for name, buffer in module.named_buffers():
        if name.endswith("freqs"):
            scale = 2 * math.pi if edm2 else 16
            buffer.copy_(scale * torch.randn(buffer.shape, generator=generator(name)))
        if name.endswith("phases"):
            buffer.copy_(2 * math.pi * torch.rand(buffer.shape, generator=generator(name)))


def generator(name: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))
