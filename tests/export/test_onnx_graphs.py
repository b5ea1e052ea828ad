"""What ONNX has not, told otherwise: complex numbers, shapes that a mask decides, a number of rows for each input."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from unistep.errors import UserError
from unistep.export import onnx_file, write_export
from unistep.export.capture import trace
from unistep.export.complex_pairs import is_complex
from unistep.teachers.diffusers import Options, load_diffusers_teacher

sys.path.insert(0, str(Path(__file__).parents[1] / "teachers"))
sys.path.insert(0, str(Path(__file__).parent))
from diffusers_families import CASES, PROMPTS
from students import student_of_teacher

ROWS = {0: "batch"}
COUNTING = ("lumina2", "z-image")  # the length of a prompt decides shapes inside of these
FAMILIES = ("sdxl", "playground", "pixart", "flux", "sana", "qwen-image", *COUNTING)


class Rotary(nn.Module):
    """Tokens turned by tables of complex numbers, looked up and put together in place."""

    def __init__(self) -> None:
        super().__init__()
        angles = torch.outer(torch.arange(6.0), torch.tensor([1.0, 0.1]))
        self.table = torch.polar(torch.ones_like(angles), angles)

    def forward(self, z: Tensor, *conditions: Tensor) -> Tensor:
        x = torch.view_as_complex(z.reshape(*z.shape[:-1], -1, 2))
        turns = torch.zeros(z.shape[0], 4, 2, dtype=self.table.dtype)
        turns[:, :3] = self.table[torch.arange(3, dtype=torch.int32)]
        turns[:, 3:] = torch.cat(self.table.split([4, 2], dim=0)[1:])[:1]
        return torch.view_as_real(x * turns * 2.0).flatten(-2)


class Sizes(nn.Module):
    """The size of complex numbers, which is neither a product nor a place."""

    def forward(self, z: Tensor, *conditions: Tensor) -> Tensor:
        return torch.view_as_complex(z.reshape(*z.shape[:-1], -1, 2)).abs()


class Squeezed(nn.Module):
    """The first of two squeezes does nothing."""

    def forward(self, z: Tensor, *conditions: Tensor) -> Tensor:
        return (z + 1).squeeze(-1).squeeze(1)


class Counting(nn.Module):
    """Each row is moved by the sum of its own tokens, each divided by its place and the number of tokens."""

    names = ("text", "mask")

    def __init__(self) -> None:
        super().__init__()
        self.denoiser = nn.Linear(3, 2)

    def forward(self, z: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        rows = []
        for x, tokens, length in zip(z, text, mask.sum(dim=1).tolist(), strict=True):
            weights = 1 / (torch.arange(length) + length)
            rows.append(x + (self.denoiser(tokens[:length]) * weights[:, None]).sum(0))
        return torch.stack(rows)


def test_complex_numbers_become_pairs() -> None:
    z = torch.randn(5, 4, 4)
    program = trace(Rotary(), [z], [ROWS])
    assert not any(is_complex(node.meta.get("val")) for node in program.graph.nodes)
    for rows in (1, 3, 5):
        torch.testing.assert_close(program.module()(z[:rows]), Rotary()(z[:rows]))


def test_other_work_on_complex_numbers_is_refused() -> None:
    with pytest.raises(UserError, match="found abs of complex numbers, expected a product"):
        trace(Sizes(), [torch.randn(5, 4, 4)], [ROWS])


def test_squeezes_of_more_than_one_are_left_out() -> None:
    program = trace(Squeezed(), [torch.randn(5, 1, 4)], [ROWS])
    assert [str(node.target) for node in program.graph.nodes].count("aten.squeeze.dim") == 1
    assert program.module()(torch.randn(3, 1, 4)).shape == (3, 4)


def test_rows_that_count_their_tokens_are_a_loop(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    held = Counting().eval()
    mask = (torch.arange(9) < torch.tensor([9, 1, 4, 7, 2])[:, None]).long()
    inputs = {"z": torch.randn(5, 2), "text": torch.randn(5, 9, 3), "mask": mask}
    onnx_file.write_graph(held, inputs, tmp_path / "graph.onnx")  # type: ignore[arg-type]
    assert capfd.readouterr() == ("", "")
    session = onnxruntime.InferenceSession(tmp_path / "graph.onnx")
    assert {value.name: value.shape[0] for value in session.get_inputs()} == dict.fromkeys(inputs, "batch")
    for rows in (1, 3, 5):
        given = {name: tensor[:rows] for name, tensor in inputs.items()}
        (found,) = session.run(None, {name: tensor.numpy() for name, tensor in given.items()})
        torch.testing.assert_close(torch.from_numpy(found), held(*given.values()).detach())


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_families_of_diffusers_are_graphs(family: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    case = CASES[family]
    case.build().save_pretrained(tmp_path / "pipeline")
    options = Options(prompts=list(PROMPTS), cache=str(tmp_path / "cache"), compare=0, **case.options)
    student = student_of_teacher(load_diffusers_teacher(str(tmp_path / "pipeline"), options))
    exported = write_export(student, "onnx", tmp_path / "export")
    assert exported.contract["verified"]["samples"] <= 1e-4
    nodes = onnx.load(str(exported.folder / "generator.onnx")).graph.node
    assert [node.op_type for node in nodes] == ["Scan"] if family in COUNTING else len(nodes) > 1
