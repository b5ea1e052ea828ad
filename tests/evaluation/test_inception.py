"""FID's Inception-v3: its size, its resize and its pools in closed form, its file and what other files are told."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from unistep.errors import UserError
from unistep.evaluation.extractors import pretrained as feature_judge
from unistep.evaluation.extractors.inception import BlockA, BlockE, InceptionV3, avg_pool, interpolation, resize
from unistep.evaluation.extractors.pretrained import load_feature_judge

SHAPES = {
    "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
    "Conv2d_4a_3x3.bn.running_var": (192,),
    "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
    "Mixed_5d.branch_pool.conv.weight": (64, 288, 1, 1),
    "Mixed_6a.branch3x3.conv.weight": (384, 288, 3, 3),
    "Mixed_6b.branch7x7dbl_2.conv.weight": (128, 128, 7, 1),
    "Mixed_6e.branch7x7_2.conv.weight": (192, 192, 1, 7),
    "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
    "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
    "Mixed_7c.branch_pool.conv.weight": (192, 2048, 1, 1),
    "fc.weight": (1008, 2048),
}


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """Random weights of the right architecture."""
    torch.manual_seed(0)
    return InceptionV3().state_dict()


@pytest.fixture(scope="module")
def file(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the port writes it: with the counters of batch normalisation."""
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    counters = {name.replace("running_var", "num_batches_tracked"): torch.tensor(0) for name in state if "_var" in name}
    torch.save(state | counters, path)
    return path


def test_it_has_the_published_size(state: dict[str, Tensor]) -> None:
    assert sum(value.numel() for name, value in state.items() if "running" not in name) == 23_850_960
    assert len(state) == 94 * 5 + 2  # convolutions with four vectors of normalisation each, and the classifier
    assert {name: tuple(state[name].shape) for name in SHAPES} == SHAPES


def test_pixels_are_looked_at_from_the_corner_not_from_their_middle() -> None:
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    expected = (torch.arange(299) * 8 / 299).clamp(max=7)  # beyond the last pixel it repeats
    torch.testing.assert_close(resize(ramp, 299)[0, 0], expected.expand(299, 299))
    torch.testing.assert_close(resize(ramp.mT, 299)[0, 0], expected[:, None].expand(299, 299))
    images = torch.rand(2, 3, 5, 5)
    torch.testing.assert_close(resize(images, 5), images)
    torch.testing.assert_close(resize(images, 15)[:, :, ::3, ::3], images)
    torch.testing.assert_close(interpolation(600, 299).sum(1), torch.ones(299))


def test_means_do_not_count_the_padding() -> None:
    torch.testing.assert_close(avg_pool(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))
    assert avg_pool(torch.arange(9.0).view(1, 1, 3, 3))[0, 0, 0, 0].item() == (0 + 1 + 3 + 4) / 4


def test_only_the_last_block_pools_by_maxima() -> None:
    x = torch.zeros(1, 1, 3, 3)
    x[..., 0, 0] = 8.0
    first, last = BlockE(8).pool, BlockE(8, last=True).pool
    assert last(x)[0, 0, 1, 1] == 8 and first(x)[0, 0, 1, 1] == pytest.approx(8 / 9)
    assert BlockA(192, 32).eval()(torch.zeros(1, 192, 35, 35)).shape == (1, 256, 35, 35)


@torch.no_grad()
def test_its_features_are_those_of_the_file_whatever_the_batch(state: dict[str, Tensor], file: Path) -> None:
    judge = load_feature_judge(f"inception:{file}")
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    features, logits = judge.features(images, batch=1)
    network = InceptionV3().eval()
    network.load_state_dict(state)
    torch.testing.assert_close(features, network(images), atol=1e-4, rtol=1e-4)
    assert features.shape == (2, 2048) and logits is None and judge.accuracy is None
    grey, _ = judge.features(images[:1, :1])
    torch.testing.assert_close(grey, judge.features(images[:1, :1].expand(-1, 3, -1, -1))[0])


def test_distances_are_called_fid_only_in_features_of_the_published_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = load_feature_judge(f"inception:{file}")
    assert (other.distance, other.title) == ("FD", "Inception-v3 with weights other than FID's (random.pth)")
    monkeypatch.setattr(feature_judge, "FID_SHA256", other.sha256)
    published = load_feature_judge(f"inception:{file}")
    assert (published.distance, published.title) == ("FID", "Inception-v3")


def test_other_files_are_refused_in_one_line(state: dict[str, Tensor], tmp_path: Path) -> None:
    renamed = {name.replace("Mixed_5b", "Mixed_5x"): value for name, value in state.items()}
    save_file(renamed, tmp_path / "renamed.safetensors")
    (tmp_path / "text.pth").write_text("not weights")
    torch.save({"state": state["fc.bias"], "step": 1}, tmp_path / "more.pth")
    with pytest.raises(UserError, match=r"missing: Mixed_5b\.branch1x1\.conv\.weight .*nearest: Mixed_5x\.branch1x1"):
        load_feature_judge(f"inception:{tmp_path / 'renamed.safetensors'}")
    with pytest.raises(UserError, match=r"evaluation\.judge: .*text\.pth holds no readable weights"):
        load_feature_judge(f"inception:{tmp_path / 'text.pth'}")
    with pytest.raises(UserError, match=r"more\.pth holds more than tensors by name"):
        load_feature_judge(f"inception:{tmp_path / 'more.pth'}")
    with pytest.raises(
        UserError, match=r"evaluation\.judge: found no file .*nothing\.pth, expected FID's Inception-v3"
    ):
        load_feature_judge(f"inception:{tmp_path / 'nothing.pth'}")
