"""Judges that are no classifiers of the data: the features of a network that was trained on other images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from unistep.errors import UserError
from unistep.evaluation.extractors.efficientnet import load_efficientnet
from unistep.evaluation.extractors.inception import InceptionV3
from unistep.evaluation.reference import ReferenceFeatures, Split
from unistep.networks.state_dict import load_strictly
from unistep.networks.weights_file import read_weights

EFFICIENTNET, INCEPTION = "efficientnet-lite0", "inception:"
FID_FILE = "pt_inception-2015-12-05-6726825d.pth"
FID_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


@dataclass(frozen=True, kw_only=True)
class FeatureJudge:
    """A frozen network that sees images and tells no classes apart. It is never part of a training loss.

    Attributes:
        title: readable name.
        network: images [b, 3, h, w] with values 0..255 -> features [b, d]; in eval mode, without gradients.
        sha256: of the file of its weights.
        distance: what the Frechet distance in its features is called: FID only where it is FID's own network.
        references: of real images, once they are known: `train`, and `test` (held out) where there are any.
    """

    title: str
    network: nn.Module
    sha256: str
    distance: str = "FD"
    references: Mapping[Split, ReferenceFeatures]

    accuracy = None

    def reference(self, split: Split) -> ReferenceFeatures:
        """Features of real images: `train` (what generators learnt from) or `test` (held out)."""
        return self.references[split]

    @torch.inference_mode()
    def features(self, images: Tensor, batch: int = 50) -> tuple[Tensor, None]:
        """uint8 [n, 1 or 3, h, w] -> features float32 [n, d] on the CPU; grey is shown in three equal channels.

        Raises:
            UserError: for images that are not 8-bit, grey or RGB.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            found = f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
            raise UserError(f"judge: found images {found}, expected uint8 [n, 1 or 3, h, w]")
        device = next(self.network.parameters()).device
        parts = [
            self.network(x.to(device).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last))
            for x in images.split(batch)
        ]
        return torch.cat(parts).float().cpu(), None


def is_feature_judge(spec: str | None) -> bool:
    """Whether a recipe's judge is one of these."""
    return spec is not None and (spec == EFFICIENTNET or spec.startswith(INCEPTION))


def load_feature_judge(spec: str) -> FeatureJudge:
    """`efficientnet-lite0` or `inception:PATH`, without references.

    Raises:
        UserError: for missing packages, or a file that is missing or holds another network.
    """
    if spec == EFFICIENTNET:
        network, sha256 = load_efficientnet()
        return FeatureJudge(title=spec, network=frozen(network), sha256=sha256, references={})
    return load_inception(Path(spec.removeprefix(INCEPTION)))


def load_inception(path: Path) -> FeatureJudge:
    """FID's Inception-v3 from the file of its PyTorch port, or a network of the same architecture from another file.

    Distances in its features are called FID where the file is the port's own, by its sha256.
    """
    state, sha256 = read_weights(path, "evaluation.judge", f"FID's Inception-v3, {FID_FILE} of pytorch-fid's releases")
    network = InceptionV3()
    load_strictly(network, {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}, path)
    if sha256 == FID_SHA256:
        return FeatureJudge(
            title="Inception-v3", network=frozen(network), sha256=sha256, distance="FID", references={}
        )  # fmt: skip
    title = f"Inception-v3 with weights other than FID's ({path.name})"
    return FeatureJudge(title=title, network=frozen(network), sha256=sha256, references={})


def frozen(network: nn.Module) -> nn.Module:
    """In eval mode, without gradients, in the memory format that convolutions are fastest in."""
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
