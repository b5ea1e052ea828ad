"""The README's Python runs as it stands there, with smaller numbers than its recipes have."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from source_tree import read
from torch import Tensor, nn

import unistep

FEW = [
    "pairs.count=8", "pairs.tile=8", "training.steps=2", "training.batch=4", "training.preview_every=null",
    "evaluation.judge=null", "evaluation.beside={}", "evaluation.solver={name: ddim, num_steps: 1}",
]  # fmt: skip
SMALL = {
    "fashion-mnist": [*FEW, "pairs.solver.num_steps=2", "method.fake_score_from_step=0", "method.dm_from_step=1"],
    "mine.yaml": [*FEW, "pairs.solver.num_steps=2", "teacher.certify=false"],  # its weights are random
}


class MyUNet(nn.Module):
    """The reader's own network: called as network(x_t, t) with t = 0..999."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.out(torch.cat([x_t, (t / 1000)[:, None, None, None].expand(-1, 1, *x_t.shape[2:])], dim=1))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", read("README.md"), re.S)


def run(block: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **known: object) -> dict[str, object]:
    """What a block leaves; `unistep.distill` gets its small numbers by the recipe's name."""
    whole: Callable[..., Path] = unistep.distill

    def small(recipe: str, **arguments: object) -> Path:
        return whole(recipe, overrides=SMALL[recipe], device="cpu", quiet=True, **arguments)

    monkeypatch.setattr(unistep, "distill", small, raising=False)
    monkeypatch.chdir(folder)
    names = dict(known)
    exec(compile(block, "README.md", "exec"), names)
    return names


def test_there_are_two_blocks() -> None:
    assert [re.search(r"unistep\.distill\(\"([^\"]+)", block)[1] for block in blocks("python")] == list(SMALL)  # type: ignore[index]


def test_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run(blocks("python")[0], tmp_path, monkeypatch)
    x = names["x"]
    assert isinstance(x, Tensor) and x.shape == (16, 1, 28, 28) and x.abs().max() < 3
    assert (tmp_path / "runs" / "demo" / "report.html").is_file()


def test_a_network_of_the_readers_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(MyUNet().state_dict(), tmp_path / "unet.pt")
    (recipe,) = (block for block in blocks("yaml") if block.startswith("kind: distill"))
    (tmp_path / "mine.yaml").write_text(recipe)
    names = run(blocks("python")[1], tmp_path, monkeypatch, MyUNet=MyUNet)
    assert names["run"] == Path("runs/mine")
    assert list((tmp_path / "runs" / "mine" / "samples").glob("*.png"))
