"""A network of the user's own from Python: distilled, sampled and opened again; its run refuses another teacher."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import unistep
from unistep.errors import UserError
from unistep.process import DiscreteVPProcess
from unistep.teachers import teacher_from_module

RECIPE = """
name: mine
kind: distill
teacher: {certify: false} # random weights
pairs: {count: 8, solver: {name: ddim, num_steps: 2}, tile: 4}
method: {name: dmd, regression: l2}
training: {steps: 2, batch: 4}
"""


class MyUNet(nn.Module):
    """Called as network(x_t, t), with t = 0..999."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.out = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        level = (t / 1000)[:, None, None, None].expand(-1, 1, *x_t.shape[2:])
        return self.out(self.inside(torch.cat([x_t, level.to(x_t.dtype)], dim=1)).relu())


def my_teacher(seed: int) -> unistep.Teacher:
    torch.manual_seed(seed)
    return teacher_from_module(
        MyUNet(), process=DiscreteVPProcess.linear(), prediction="eps", shape=(1, 8, 8), source="unet.pt"
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine.yaml").write_text(RECIPE)
    return unistep.distill(folder / "mine.yaml", out=folder / "run", teacher=my_teacher(0), quiet=True)


def test_without_a_judge_samples_are_shown_and_not_measured(run: Path) -> None:
    assert (run / "report.html").is_file() and (run / "previews" / "evaluation.png").is_file()
    assert not (run / "evaluation.json").exists()
    with pytest.raises(UserError, match=r"evaluation\.judge: found nothing, expected embedded:NAME, a folder"):
        unistep.evaluate(run, teacher=my_teacher(0), quiet=True)


def test_the_generator_is_opened_and_sampled_with_its_teacher(run: Path) -> None:
    generator, config, _ = unistep.load_generator(run, my_teacher(0))
    assert config["shape"] == [1, 8, 8]
    assert generator(torch.randn(2, 1, 8, 8)).shape == (2, 1, 8, 8)
    assert unistep.sample(run, num=3, teacher=my_teacher(0)).is_file()
    assert unistep.sample(run, num=3, teacher=my_teacher(0), checkpoint="last").is_file()
    with pytest.raises(UserError, match="its teacher was a module of your own"):
        unistep.sample(run, num=3)


def test_another_teacher_is_refused(run: Path) -> None:
    with pytest.raises(UserError, match=r"found teacher unet\.pt .*, expected the run's own"):
        unistep.evaluate(run, teacher=my_teacher(1), quiet=True)
    with pytest.raises(UserError, match="teacher: found neither load nor teach"):
        unistep.evaluate(run, quiet=True)
