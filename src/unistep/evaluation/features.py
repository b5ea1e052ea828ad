"""The judge: a frozen classifier, the features it sees images by, and the reference features of real images."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from unistep.arguments import require_arguments, require_type
from unistep.assets import embedded_folder
from unistep.atomic import atomic_write
from unistep.errors import UserError
from unistep.evaluation.judge_network import Judgement, JudgeNetwork
from unistep.evaluation.perceptual_network import PerceptualNetwork

Split = Literal["train", "test"]
N = TypeVar("N", bound=nn.Module)
JUDGE_FORMAT, PERCEPTUAL_FORMAT = "unistep-judge/1", "unistep-perceptual/1"
HEADER: Mapping[str, Any] = {"accuracy": float, "recipe": dict, "names": tuple[str, ...]}


@dataclass(frozen=True)
class ReferenceFeatures:
    """Real images as the judge sees them.

    Attributes:
        features: float32 [m, d] of the first m images (stored as float16), for metrics that need neighbours.
        labels: int64 [m].
        mean: float64 [d] over all `count` images, not only the m stored.
        cov: float64 [d, d], unbiased, over all `count` images.
        count: number of images behind mean and cov.
    """

    features: Tensor
    labels: Tensor
    mean: NDArray[np.float64]
    cov: NDArray[np.float64]
    count: int


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
        if absent := {f"{s}.{f.name}" for s in ("train", "test") for f in fields(ReferenceFeatures)} - set(tensors):
            raise UserError(f"{path}: {min(absent)}: missing; restore the file")
        judge = cls(
            network=network,
            accuracy=config["accuracy"],
            references={"train": unpack_reference(tensors, "train"), "test": unpack_reference(tensors, "test")},
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
    """A judge from `embedded:NAME` or from a folder that `Judge.save` wrote."""
    return Judge.load(asset_or_folder(spec, "judge"))


def load_perceptual(spec: str | Path = "embedded:fashion-mnist") -> PerceptualNetwork:
    """The frozen network for perceptual losses, from `embedded:NAME` or a folder with perceptual.safetensors."""
    path = asset_or_folder(spec, "perceptual network") / "perceptual.safetensors"
    config, state, _ = read_file(path, PERCEPTUAL_FORMAT)
    return described(PerceptualNetwork, config, state, path)


def save_perceptual(folder: Path, network: PerceptualNetwork, description: Mapping[str, Any]) -> None:
    """Writes perceptual.safetensors: fp16 parameters, with the description in the header."""
    content = network_file(network, {"format": PERCEPTUAL_FORMAT, "network": network.config, **description})
    atomic_write(folder / "perceptual.safetensors", content)


def asset_or_folder(spec: str | Path, what: str) -> Path:
    """The folder behind `embedded:NAME` or a path."""
    kind, _, name = str(spec).partition(":")
    if kind == "embedded":
        return embedded_folder(name)
    if not Path(spec).is_dir():
        raise UserError(f"{what}: found no folder {spec}, expected embedded:NAME or a folder")
    return Path(spec)


def reference_of(features: Tensor, labels: Tensor, stored: int = 10_000) -> ReferenceFeatures:
    """Reference of all features [n, d], of which the first `stored` are kept one by one (rounded to float16)."""
    every = features.double().numpy()
    kept = features[:stored].half().float()
    mean, cov = every.mean(0), np.atleast_2d(np.cov(every, rowvar=False))
    return ReferenceFeatures(kept, labels[:stored], mean, cov, len(every))


def pack_reference(reference: ReferenceFeatures) -> dict[str, Tensor]:
    """As stored: float16 features, uint8 labels (int64 beyond 256 classes), float64 moments."""
    few = int(reference.labels.max()) < 256
    return {
        "features": reference.features.half(),
        "labels": reference.labels.to(torch.uint8 if few else torch.int64),
        "mean": torch.from_numpy(reference.mean),
        "cov": torch.from_numpy(reference.cov),
        "count": torch.tensor(reference.count),
    }


def unpack_reference(tensors: Mapping[str, Tensor], split: str) -> ReferenceFeatures:
    """The inverse of `pack_reference`, out of a file's tensors."""
    features, labels, mean, cov, count = (tensors[f"{split}.{f.name}"] for f in fields(ReferenceFeatures))
    return ReferenceFeatures(features.float(), labels.long(), mean.numpy(), cov.numpy(), int(count))


def network_file(network: nn.Module, config: Mapping[str, Any]) -> bytes:
    """A safetensors file: parameters as fp16, buffers as they are, `config` as JSON in the header.

    One entry in the header only, because several would be written in an arbitrary order.
    """
    buffers = {name for name, _ in network.named_buffers()}
    state = {
        k: (v if k in buffers else v.half()).detach().cpu().contiguous(memory_format=torch.contiguous_format)
        for k, v in network.state_dict().items()
    }
    return save(state, {"config": json.dumps(config, sort_keys=True)})


def read_file(path: Path, format: str | None) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, str]]:
    """Description, tensors and header of a safetensors file; `format` is what its description must name."""
    if not path.is_file():
        raise UserError(f"{path}: not found; expected a safetensors file there")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}
        config = json.loads(metadata.get("config", "{}"))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: no readable safetensors file ({error}); restore the file") from error
    found = config.get("format") if isinstance(config, dict) else None
    if format and found != format:
        raise UserError(f"{path}: found format {found!r}, expected {format!r}")
    return config, tensors, metadata


def described(
    make: Callable[..., N], config: Mapping[str, Any], state: Mapping[str, Tensor], path: Path
) -> N:  # fmt: skip
    """The network that a file's description names, with the file's weights."""
    require_type(config.get("network"), dict, f"{path}: network")
    require_arguments(make, config["network"], f"{path}: network")
    try:
        network = make(**config["network"])
    except (ArithmeticError, RuntimeError, ValueError) as error:  # sizes that make no network
        raise UserError(f"{path}: network: found {config['network']}, which makes none; restore the file") from error
    return fill(network, state, path)


def fill(network: N, state: Mapping[str, Tensor], path: Path) -> N:
    """Loads weights into a network, which becomes frozen and fp32."""
    try:
        network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    except RuntimeError as error:
        raise UserError(f"{path}: the weights do not fit the network that the file describes; restore it") from error
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
