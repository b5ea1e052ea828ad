"""LPIPS from the user's files: random weights of the right architecture go the whole way; other files are refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import unistep
from unistep.diffusion.process import EDMProcess
from unistep.errors import UserError
from unistep.losses import lpips
from unistep.losses.lpips import VGGMetric
from unistep.recipes import load_recipe
from unistep.run.distance import lpips_of_files
from unistep.teachers import teacher_from_module

RECIPE = """
kind: distill
teacher: {certify: false} # its weights are random
pairs: {count: 4, solver: {num_steps: 2}, tile: 4}
method: {lpips_weights: [vgg16.pth, lpips.pth]}
training: {steps: 1, batch: 2}
"""


class Faded(nn.Module):
    """A denoiser that answers with a learnt share of what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.tensor(0.1))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.share * x_t


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    state = VGGMetric().state_dict()
    return {name: value.abs() if name.startswith("lin") else value for name, value in state.items()}  # as LPIPS's are


@pytest.fixture(scope="module")
def folder(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files as torchvision and LPIPS have them: the trunk beside a classifier, and the learnt layers."""
    place = tmp_path_factory.mktemp("lpips")
    trunk = {name: value for name, value in state.items() if name.startswith("features.")}
    torch.save(trunk | {"classifier.0.weight": torch.zeros(2, 2)}, place / "vgg16.pth")
    torch.save({name: value for name, value in state.items() if name not in trunk}, place / "lpips.pth")
    (place / "mine.yaml").write_text(RECIPE)
    return place


def test_two_files_or_one_are_the_same_metric(state: dict[str, Tensor], folder: Path, tmp_path: Path) -> None:
    save_file(state, tmp_path / "both.safetensors")
    two = lpips_of_files([str(folder / "vgg16.pth"), str(folder / "lpips.pth")], tmp_path).state_dict()
    assert set(json.loads((tmp_path / "run.json").read_text())["lpips_weights"]) == {
        str(folder / "vgg16.pth"), str(folder / "lpips.pth"),
    }  # fmt: skip
    one = lpips_of_files([str(tmp_path / "both.safetensors")], tmp_path).state_dict()
    assert all(torch.equal(two[name], value) and torch.equal(one[name], value) for name, value in state.items())


def test_a_run_learns_by_them_and_records_their_hashes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(lpips, "SIZE", 32)  # VGG at 224 takes seconds an image
    teacher = teacher_from_module(Faded(), process=EDMProcess(), prediction="x0", shape=(1, 8, 8))
    run = unistep.distill("mine.yaml", out=tmp_path / "run", teacher=teacher, quiet=True)
    hashes = json.loads((run / "run.json").read_text())["lpips_weights"]
    assert set(hashes) == {"vgg16.pth", "lpips.pth"} and all(len(value) == 64 for value in hashes.values())
    report = (run / "report.html").read_text()
    assert "lpips_weights.vgg16.pth" in report and hashes["vgg16.pth"][:16] in report
    losses = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any(line.get("loss/reg", 0) > 0 for line in losses)


def test_other_files_are_refused_before_pairs_are_made(folder: Path, tmp_path: Path) -> None:
    teacher = teacher_from_module(Faded(), process=EDMProcess(), prediction="x0", shape=(1, 8, 8))

    def refuse(files: str, words: str) -> None:
        override = f"method.lpips_weights={files}"
        with pytest.raises(UserError, match=words):
            unistep.distill(
                folder / "mine.yaml", out=tmp_path / "run", overrides=[override], teacher=teacher, quiet=True
            )
        assert not (tmp_path / "run" / "pairs").exists()

    refuse("[no.pth]", r"method\.lpips_weights: found no file no\.pth, expected VGG16 .*vgg16-397923af\.pth")
    refuse(f"[{folder / 'vgg16.pth'}]", r"method\.lpips_weights: .*missing: lin0\.model\.1\.weight .* and 2 more")


def test_weights_without_lpips_are_a_mistake(folder: Path) -> None:
    with pytest.raises(UserError, match=r"method\.lpips_weights: found a value, expected nothing: regression is l2"):
        load_recipe(folder / "mine.yaml", ["method.regression=l2"])
