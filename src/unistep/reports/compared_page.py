"""The page of a comparison, one file that needs nothing else: table, quality against cost, samples."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unistep.errors import UserError
from unistep.evaluation.comparison import ComparedRow, Comparison
from unistep.io.atomic import atomic_write
from unistep.reports.columns import significant
from unistep.reports.compared import cells
from unistep.reports.figures import COLOURS, GREY, INK, inline_svg, logarithmic, plain_number, render, style
from unistep.reports.html import flattened, picture, rendered
from unistep.reports.run_files import SAMPLES, first_file, read_object
from unistep.reports.table import html_table
from unistep.reports.verdict import DISTANCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vP*X<>"
APART = 1.2  # labels of the logarithmic axis, at least this factor
SIDEWAYS = 1.12  # rows at the same cost stand beside each other, at most this factor to the left and right of it


def write_comparison(folder: Path, comparison: Comparison) -> Path:
    """Writes compare.html and compare.svg into a comparison's folder, each whole or not at all.

    Raises:
        UserError: if they cannot be written.
    """
    drawing = render(draw_cost(comparison, ink=GREY), "svg", "cost")
    path = folder / "compare.html"
    try:
        atomic_write(folder / "compare.svg", drawing)
        atomic_write(path, page(folder, comparison).encode())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); expected a writable folder") from error
    return path


def page(folder: Path, comparison: Comparison) -> str:
    """The page as text."""
    text, recipe, previews = cells(comparison), folder / "recipe.yaml", folder / "previews"
    return rendered(
        "compare.html.j2",
        name=comparison.name,
        about=comparison.about,
        budget=comparison.budget,
        verdict=verdict(comparison),
        table=html_table(text),
        note=text.note,
        legend=text.legend,
        cost=inline_svg(render(draw_cost(comparison), "svg", "cost")),
        samples=picture(
            first_file(previews / f"{SAMPLES}.svg", previews / f"{SAMPLES}.png"), "Rows from the same seeds"
        ),
        missing=comparison.missing,
        entries=[row for row in comparison.rows if row.role == "entry"],
        recipe=recipe.read_text() if recipe.is_file() else "",
        versions=flattened(read_object(folder / "run.json", [], "") or {}),
    )


def verdict(comparison: Comparison) -> str:
    """One sentence: the entry of the smallest mean distance, and how far apart the first two are."""
    key, name = deciding(comparison)
    means = {row.name: statistics.fmean(row.figures[key]) for row in entries(comparison) if row.figures.get(key)}
    ranked = sorted(means, key=lambda entry: means[entry])
    if not ranked:
        return "No entry has been judged yet."
    words = f"At {comparison.budget}, {ranked[0]} has the smallest {name}, {significant(means[ranked[0]])}"
    if len(ranked) == 1:
        return f"{words}; it is the only entry."
    return f"{words}; {ranked[1]} follows with {significant(means[ranked[1]])}."


def entries(comparison: Comparison) -> list[ComparedRow]:
    """The rows that were trained."""
    return [row for row in comparison.rows if row.role == "entry"]


def deciding(comparison: Comparison) -> tuple[str, str]:
    """Key and name of the distance that decides."""
    key, name = DISTANCE[comparison.kind]
    return key, comparison.distance if comparison.distance == "FID" else name


# ---------------------------------------------------------------------------------------------- quality against cost


def draw_cost(comparison: Comparison, ink: str = INK) -> "Figure":
    """The distance over network evaluations per sample, both logarithmic.

    Solvers are lines, entries points with their spread over seeds.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    key, name = deciding(comparison)
    figure = Figure(figsize=(7.6, 4.2), layout="constrained")
    axes = figure.subplots()
    shown = [row for row in comparison.rows if row.nfe is not None and min(row.figures.get(key) or [0.0]) > 0]
    draw_references(axes, comparison, key)
    draw_solvers(axes, [row for row in shown if row.role == "solver"], key)
    draw_entries(axes, [row for row in shown if row.role == "entry"], key)
    axes.set_xscale("log")
    if shown:
        axes.set_xticks(legible([row.nfe for row in shown if row.nfe is not None]))
        logarithmic(axes)
    axes.xaxis.set_major_formatter(plain_number)
    axes.xaxis.set_minor_locator(NullLocator())
    style(axes, ink)
    axes.set_xlabel("network evaluations per sample")
    axes.set_ylabel(name)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8.5, labelcolor=ink)
    return figure


def legible(costs: Sequence[int]) -> list[int]:
    """The costs that are written at the axis: those too near to the one before would lie over it."""
    kept: list[int] = []
    for cost in sorted(costs):
        if not kept or cost >= APART * kept[-1]:
            kept.append(cost)
    return kept


def draw_references(axes: "Axes", comparison: Comparison, key: str) -> None:
    """Teacher as points, the floor as a line."""
    for row in comparison.rows:
        value = row.figures.get(key, [0.0])[0]
        if row.role == "floor" and value > 0:
            axes.axhline(value, color=GREY, linestyle=(0, (5, 4)), linewidth=1.1, label=row.name)
        elif row.role == "teacher" and row.nfe is not None and value > 0:
            axes.plot([row.nfe], [value], color=GREY, marker="s", linestyle="", label=row.name)


def draw_solvers(axes: "Axes", rows: list[ComparedRow], key: str) -> None:
    """One line for each solver."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        lines.setdefault(row.group, []).append((row.nfe or 0, row.figures[key][0]))
    for colour, (group, points) in zip(COLOURS * 4, lines.items(), strict=False):
        axes.plot(*zip(*sorted(points), strict=True), color=colour, linewidth=1.2, marker=".", label=group)


def draw_entries(axes: "Axes", rows: list[ComparedRow], key: str) -> None:
    """One point for each entry, its range over seeds as a bar."""
    for index, row in enumerate(rows):
        values, place = row.figures[key], sideways(index, [other.nfe or 1 for other in rows])
        mean = statistics.fmean(values)
        reach = [[mean - min(values)], [max(values) - mean]]
        axes.errorbar(
            [place], [mean], yerr=reach, color=COLOURS[index % len(COLOURS)], marker=MARKERS[index % len(MARKERS)],
            linestyle="", capsize=2, label=row.name,
        )  # fmt: skip


def sideways(index: int, costs: Sequence[int]) -> float:
    """Where one of several entries is drawn, so that those of its cost hide neither each other nor what they cost."""
    same = [i for i, cost in enumerate(costs) if cost == costs[index]]
    share = same.index(index) / (len(same) - 1) if len(same) > 1 else 0.5
    return costs[index] * SIDEWAYS ** (2 * share - 1)
