"""EfficientNet-Lite0 as a judge: it sees a flower for what it is, so images reach it as it was trained to see them."""

import sys

import pytest
import torch
from sklearn.datasets import load_sample_image

from unistep.errors import UserError
from unistep.evaluation.extractors.pretrained import load_feature_judge

DAISY = 985


def test_without_the_packages_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(UserError, match=r"evaluation\.judge: .*pip install 'unistep\[efficientnet\]'"):
        load_feature_judge("efficientnet-lite0")


def test_a_photograph_is_recognised() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    judge = load_feature_judge("efficientnet-lite0")
    assert judge.sha256.startswith("579344248a93") and judge.distance == "FD" and judge.title == "efficientnet-lite0"
    photograph = torch.from_numpy(load_sample_image("flower.jpg").copy()).permute(2, 0, 1)[:, :, 100:527]
    features, logits = judge.features(photograph[None])
    assert features.shape == (1, 1280) and logits is None
    assert int(judge.network.network._fc(features).argmax()) == DAISY
    with pytest.raises(UserError, match=r"found images float32 \[1, 3, 4, 4\], expected uint8 \[n, 1 or 3, h, w\]"):
        judge.features(torch.zeros(1, 3, 4, 4))
