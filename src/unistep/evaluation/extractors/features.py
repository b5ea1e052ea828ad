"""The judge: a frozen classifier of the data, and the features it sees images by."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from unistep.assets import embedded_folder
from unistep.errors import UserError
from unistep.evaluation.extractors.network_file import (
    Judgement,
    JudgeNetwork,
    PerceptualNetwork,
    described,
    network_file,
    read_file,
)
from unistep.evaluation.reference import STORED, ReferenceFeatures, Split, pack_reference, unpack_reference
from unistep.io.arguments import require_type
from unistep.io.atomic import atomic_write

JUDGE_FORMAT, PERCEPTUAL_FORMAT = "unistep-judge/1", "unistep-perceptual/1"
PLACES = (".", "judge", "teacher/judge")  # of a folder, a run of teach, and a distillation that taught its teacher
HEADER: Mapping[str, Any] = {"accuracy": float, "recipe": dict, "names": tuple[str, ...]}


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A frozen judge. It is never part of a training loss.

    Attributes:
        network: in eval mode, without gradients.
        accuracy: on the held-out images, 0..1.
        references: of real images, for `train` and `test` (held out).
        recipe: how it was trained, plain values.
        names: of the classes; may be empty.
    """

    network: JudgeNetwork
    accuracy: float
    references: Mapping[Split, ReferenceFeatures]
    recipe: Mapping[str, Any]
    names: tuple[str, ...] = ()

    title = "a classifier of the data"
    distance = "FD"

    @property
    def num_classes(self) -> int:
        """Number of classes it tells apart."""
        return self.network.config["num_classes"]

    @property
    def sha256(self) -> str:
        """Of the weights file: what names this judge beside a number."""
        return hashlib.sha256(self.weights_file()).hexdigest()

    def reference(self, split: Split) -> ReferenceFeatures:
        """Features of real images: `train` (what generators learnt from) or `test` (held out)."""
        return self.references[split]

    @torch.inference_mode()
    def features(self, images: Tensor, batch: int = 500) -> Judgement:
        """uint8 [n, c, h, w] -> features float32 [n, d] and logits float32 [n, k], on the CPU.

        Raises:
            UserError: for images that are not 8-bit or not of the judge's shape.
        """
        c, size = self.network.config["channels"], self.network.config["size"]
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != (c, size, size):
            found = f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
            raise UserError(f"judge: found images {found}, expected uint8 [n, {c}, {size}, {size}]")
        device = self.network.classify.weight.device
        parts = [self.network(x.to(device, memory_format=torch.channels_last)) for x in images.split(batch)]
        return Judgement(*(torch.cat(part).float().cpu() for part in zip(*parts, strict=True)))

    def weights_file(self) -> bytes:
        """The content of judge.safetensors: fp16 parameters, fp32 statistics, the description in the header."""
        config = {"network": self.network.config, "accuracy": self.accuracy, "names": list(self.names)}
        return network_file(self.network, {"format": JUDGE_FORMAT, **config, "recipe": dict(self.recipe)})

    def save(self, folder: Path) -> None:
        """Writes judge.safetensors and reference.safetensors, each atomically."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"{split}.{k}": v for split, r in self.references.items() for k, v in pack_reference(r).items()}
        atomic_write(folder / "reference.safetensors", save(tensors, {"judge": self.sha256}))
        atomic_write(folder / "judge.safetensors", self.weights_file())

    @classmethod
    def load(cls, folder: Path) -> "Judge":
        """What `save` wrote.

        Raises:
            UserError: for a missing or damaged file, or references made with other weights.
        """
        config, state, _ = read_file(folder / "judge.safetensors", JUDGE_FORMAT)
        for key, wanted in HEADER.items():
            require_type(config.get(key), wanted, f"{folder / 'judge.safetensors'}: {key}")
        network = described(JudgeNetwork, config, state, folder / "judge.safetensors")
        path = folder / "reference.safetensors"
        _, tensors, metadata = read_file(path, None)
        if absent := {f"{s}.{name}" for s in ("train", "test") for name in STORED} - set(tensors):
            raise UserError(f"{path}: {min(absent)}: missing; restore the file")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        splits: tuple[Split, ...] = ("train", "test")
        judge = cls(
            network=network,
            accuracy=config["accuracy"],
            references={split: unpack_reference(tensors, split, digest) for split in splits},
            recipe=config["recipe"],
            names=tuple(config["names"]),
        )
        if metadata.get("judge") != judge.sha256:
            raise UserError(
                f"{path}: reference features of judge {metadata.get('judge')}, expected {judge.sha256}; "
                "the two files do not belong together"
            )
        return judge


def load_judge(spec: str | Path = "embedded:fashion-mnist") -> Judge:
    """A judge from `embedded:NAME`, a folder that `Judge.save` wrote, or a run of `teach`, which leaves one in it.

    Raises:
        UserError: if there is none, or it is damaged.
    """
    folder = asset_or_folder(spec, "judge")
    places = [folder / inside for inside in PLACES if (folder / inside / "judge.safetensors").is_file()]
    if not places:
        raise UserError(
            f"judge: found no judge.safetensors in {folder}, expected one; `unistep teach` leaves one in its run where "
            "it trains a judge (evaluation.judge: train)"
        )
    return Judge.load(places[0])


def load_perceptual(spec: str | Path = "embedded:fashion-mnist") -> PerceptualNetwork:
    """The frozen network for perceptual losses.

    Args:
        spec: `embedded:NAME`, a folder with perceptual.safetensors, or a run of `teach`, which leaves one beside its
            judge (also one inside a run of `distill` that taught its teacher).

    Raises:
        UserError: if there is none.
    """
    path = perceptual_file(spec)
    config, state, _ = read_file(path, PERCEPTUAL_FORMAT)
    return described(PerceptualNetwork, config, state, path)


def perceptual_file(spec: str | Path) -> Path:
    """Finds the file of a network for perceptual losses.

    Raises:
        UserError: if there is none.
    """
    folder = asset_or_folder(spec, "perceptual network")
    places = [folder / inside / "perceptual.safetensors" for inside in PLACES]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise UserError(
            f"perceptual network: found no perceptual.safetensors in {folder}, expected one; `unistep teach` "
            "leaves one in its run where it trains a judge (evaluation.judge: train), which takes images with classes; "
            "without them choose regression multiscale or lpips"
        )
    return found


def save_perceptual(folder: Path, network: PerceptualNetwork, description: Mapping[str, Any]) -> None:
    """Writes perceptual.safetensors: fp16 parameters, with the description in the header."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "perceptual.safetensors", perceptual_bytes(network, description))


def perceptual_bytes(network: PerceptualNetwork, description: Mapping[str, Any]) -> bytes:
    """The content of perceptual.safetensors."""
    return network_file(network, {"format": PERCEPTUAL_FORMAT, "network": network.config, **description})


def asset_or_folder(spec: str | Path, what: str) -> Path:
    """The folder behind `embedded:NAME` or a path."""
    kind, _, name = str(spec).partition(":")
    if kind == "embedded":
        return embedded_folder(name)
    if not Path(spec).is_dir():
        raise UserError(f"{what}: found no folder {spec}, expected embedded:NAME or a folder")
    return Path(spec)
