"""Tables in three forms, number formats, verdicts, curves by name, grids pixel by pixel."""

import io

import pytest
import torch
from PIL import Image
from rich.console import Console

from unistep.errors import UserError
from unistep.evaluation import Evaluation
from unistep.reports import draw_panel, draw_points, grid_png, image_grid, print_table, render, to_html, to_markdown
from unistep.reports.columns import significant
from unistep.reports.curves import Panel, panels
from unistep.reports.figures import GREY
from unistep.reports.verdict import verdict


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000"), (1.0, "1.00"), (4.625, "4.62"), (12.34, "12.3"), (1322.4, "1,322"), (0.0021, "0.00210"),
        (2.5e6, "2.50e+06"), (0.00001, "1.00e-05"), (702.0, "702"), (0.9996, "1.000"),
    ],
)  # fmt: skip
def test_three_digits(value: float, text: str) -> None:
    assert significant(value) == text


def test_the_same_cells_in_three_forms(image_evaluation: Evaluation) -> None:
    console = Console(file=io.StringIO(), width=200)
    print_table(image_evaluation, console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    markdown, html = to_markdown(image_evaluation), to_html(image_evaluation)
    for cell in ("8.93", "1,322", "92.9 %", "35", "148", "4.46 \u00b1 0.99"):
        assert cell in printed and f"| {cell} |" in markdown and f"<td>{cell}</td>" in html
    assert markdown.splitlines()[1].startswith("|---|---:|")
    assert '<tr class="student"><th scope="row">student</th>' in html
    assert "10,000 samples per row; against 60,000 real images" in printed


def test_a_narrow_terminal_gets_the_table_turned(image_evaluation: Evaluation) -> None:
    console = Console(file=io.StringIO(), width=80)
    print_table(image_evaluation, console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    row = next(line for line in printed.splitlines() if "FD" in line)
    assert row.split() == ["FD", "\u2193", "1.31", "4.62", "1,322", "14.7", "8.93"]
    assert max(map(len, printed.splitlines())) <= 80


def test_points_have_their_own_columns(point_evaluation: Evaluation) -> None:
    text = to_markdown(point_evaluation)
    assert "| modes \u2191 | near a mode \u2191 | energy \u2193 |" in text
    assert "| student | 8 | 87.1 % | 0.00210 |" in text
    assert "FD" not in text


def test_verdicts(image_evaluation: Evaluation, point_evaluation: Evaluation) -> None:
    sentence = verdict(image_evaluation)
    assert sentence.startswith("With one network evaluation, the student reaches a Frechet distance of 8.93;")
    assert "cut to one step reaches 1,322" in sentence and "real samples against real ones give 1.31" in sentence
    assert sentence.endswith("a single sample takes 4.24 ms, 34.9 times less.")
    assert "energy distance of 0.00210" in verdict(point_evaluation)
    assert verdict(None) == "This run has not been judged yet."


def test_panels_take_what_is_there(image_evaluation: Evaluation) -> None:
    lines = [
        {"step": 1, "time": 3.0, "loss/dm": 0.5, "loss/denoise": 2.0, "grad_norm/generator": 1.0},
        {"step": 2, "loss/dm": -0.5, "loss/reg": None, "loss/denoise": 1.0, "health/lag": "words"},
        {"step": 2, "evaluation/frechet": 20.0},
    ]
    found = {p.title: p for p in panels(lines, image_evaluation)}
    assert set(found) == {"Frechet distance during training", "Losses of the generator", "Denoising loss",
                          "Gradient norms before clipping"}  # fmt: skip
    assert found["Losses of the generator"].series == {"dm": ([1, 2], [0.5, -0.5])}
    assert not found["Losses of the generator"].log  # values below zero
    assert found["Denoising loss"].series == {"fake score": ([1, 2], [2.0, 1.0])}
    levels = found["Frechet distance during training"].levels
    assert levels == {"teacher, 35 evaluations": 4.62, "real images, held out": 1.31}
    assert panels([]) == []


def test_figures_as_png_and_svg() -> None:
    panel = Panel(title="t", unit="loss", series={"a": (list(range(900)), [1.0 + i for i in range(900)])}, log=True)
    png = render(draw_panel(panel, GREY), "png")
    assert Image.open(io.BytesIO(png)).mode == "RGBA"
    svg = render(draw_panel(panel), "svg", "t").decode()
    assert "<svg" in svg and ">step<" in svg and ">loss<" in svg
    assert render(draw_panel(panel), "svg", "t").decode() == svg
    assert render(draw_points({"line": torch.randn(5, 1), "solid": torch.randn(5, 3)}), "png")[:4] == b"\x89PNG"


def test_grid_enlarges_by_whole_pixels() -> None:
    images = torch.arange(2 * 4, dtype=torch.uint8).reshape(2, 1, 2, 2) * 30
    grid = image_grid({"": images, " ": images}, scale=3)
    assert grid.height == 2 * 6 + 2
    left = grid.width - (2 * 6 + 2)
    assert grid.getpixel((left, 0)) == (0, 0, 0, 255) == grid.getpixel((left + 2, 2))
    assert grid.getpixel((left + 3, 0)) == (30, 30, 30, 255)
    assert grid.getpixel((left + 6, 0)) == (0, 0, 0, 0)  # the gap is transparent
    assert grid.getpixel((left + 8, 8)) == (120, 120, 120, 255)


def test_grid_in_colour_and_by_default_size() -> None:
    red = torch.zeros(3, 3, 28, 28, dtype=torch.uint8)
    red[:, 0] = 255
    grid = Image.open(io.BytesIO(grid_png({"teacher": red, "student,\none step": red})))
    assert grid.getpixel((grid.width - 1, 5)) == (255, 0, 0, 255)
    assert grid.height == 2 * 56 + 2


def test_grids_of_different_shapes_are_refused() -> None:
    with pytest.raises(UserError, match="expected one shape"):
        image_grid({"a": torch.zeros(1, 1, 2, 2).byte(), "b": torch.zeros(2, 1, 2, 2).byte()})
    with pytest.raises(UserError, match="expected uint8"):
        image_grid({"a": torch.zeros(1, 1, 2, 2)})
