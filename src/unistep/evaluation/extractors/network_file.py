"""Networks of unistep's own as safetensors files, with their description in the header."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from unistep.errors import UserError
from unistep.io.arguments import require_arguments, require_type
from unistep.io.text_files import parse_json

N = TypeVar("N", bound=nn.Module)


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
    except SafetensorError as error:
        raise UserError(f"{path}: no readable safetensors file ({error}); restore the file") from error
    config = parse_json(metadata.get("config", "{}"), path, "restore the file")
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


class Judgement(NamedTuple):
    """Features [b, d] and class logits [b, k] of a batch of images."""

    features: Tensor
    logits: Tensor


class JudgeNetwork(nn.Module):
    """Residual network with batch normalisation, for square images from 8x8 up.

    One pooling brings any image to 8..15 pixels a side (14 for 28x28), two strided blocks to a quarter of that. At
    28x28x1 it has 215 thousand parameters and needs 7.2 million multiply-adds.
    """

    def __init__(self, channels: int, size: int, num_classes: int, num_features: int = 64) -> None:
        super().__init__()
        self.config = dict(channels=channels, size=size, num_classes=num_classes, num_features=num_features)
        self.stem = nn.Sequential(conv_norm(channels, 24), nn.ReLU(), nn.MaxPool2d(max(1, size // 14)))
        self.blocks = nn.Sequential(ResidualBlock(24, 24), ResidualBlock(24, 64, 2), ResidualBlock(64, 96, 2))
        self.head = nn.Sequential(conv_norm(96, num_features, kernel=1), nn.ReLU())
        self.classify = nn.Linear(num_features, num_classes)

    def forward(self, images: Tensor) -> Judgement:
        """uint8 [b, c, h, w] (0..255, or float of that range) -> features [b, d] and logits [b, k]."""
        x = images.to(self.classify.weight.dtype) / 127.5 - 1
        features = self.head(self.blocks(self.stem(x))).mean((2, 3))
        return Judgement(features, self.classify(features))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a 1x1 (or nothing, where the shape stays)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = conv_norm(inputs, outputs, stride)
        self.second = conv_norm(outputs, outputs)
        same = inputs == outputs and stride == 1
        self.skip = nn.Identity() if same else conv_norm(inputs, outputs, stride, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """[b, inputs, h, w] -> [b, outputs, h / stride, w / stride], rounded up."""
        return F.relu(self.skip(x) + self.second(F.relu(self.first(x))))


def conv_norm(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """Convolution that keeps the size (over the stride), then batch normalisation, which brings the bias."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class PerceptualNetwork(nn.Module):
    """Plain convolutional classifier in three stages, without skips, smooth everywhere (SiLU, average pooling).

    Its forward pass gives the feature maps of the three stages; `logits` is only for its own training. At 28x28x1 it
    has 70 thousand parameters and needs 6.3 million multiply-adds.
    """

    def __init__(self, channels: int, size: int, num_classes: int, widths: tuple[int, int, int] = (12, 32, 64)) -> None:
        super().__init__()
        self.config = dict(channels=channels, size=size, num_classes=num_classes, widths=list(widths))
        sizes = (channels, *widths)
        self.stages = nn.ModuleList(stage(a, b) for a, b in zip(sizes, widths, strict=False))
        self.pool = nn.AvgPool2d(2)
        self.classify = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images in model space [b, c, h, w] in [-1, 1], differentiable -> maps [b, width, h / 2^i, w / 2^i]."""
        maps = [self.stages[0](x)]
        for deeper in list(self.stages)[1:]:
            maps.append(deeper(self.pool(maps[-1])))
        return maps

    def logits(self, images: Tensor) -> Tensor:
        """uint8 images [b, c, h, w] (or float, 0..255) -> class logits [b, k]."""
        x = images.to(self.classify.weight.dtype) / 127.5 - 1
        return self.classify(self.forward(x)[-1].mean((2, 3)))


def stage(inputs: int, outputs: int) -> nn.Sequential:
    """Twice: 3x3 convolution, group normalisation, SiLU."""
    layers: list[nn.Module] = []
    for a in (inputs, outputs):
        layers += [nn.Conv2d(a, outputs, 3, padding=1, bias=False), nn.GroupNorm(outputs // 4, outputs), nn.SiLU()]
    return nn.Sequential(*layers)
