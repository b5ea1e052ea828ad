"""Figures by matplotlib: curves and scatters, as PNG bytes or as SVG that takes the colours of its page."""

import io
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
from torch import Tensor

from unistep.reports.curves import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"  # becomes the page's text colour in SVG
GREY = "#80848c"  # legible on white and on black: the ink for PNG
COLOURS = ("#4477cc", "#d9822b", "#3a9e6e", "#9b6bd1", "#cf4f4b", "#6f8a2b")
POINTS_BESIDE = 6  # scatters in a line; more go below
MAX_POINTS = 300  # drawn per series; longer ones as the mean of each bin over its range


def draw_panel(panel: Panel, ink: str = INK) -> "Figure":
    """One panel: its series over steps, levels as dashed lines; `ink=GREY` for PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.1))
    axes = figure.subplots(gridspec_kw={"left": 0.14, "right": 0.98, "bottom": 0.16, "top": 0.96})
    for colour, (name, (steps, values)) in zip(COLOURS * 4, panel.series.items(), strict=False):
        draw_series(axes, np.asarray(steps), np.asarray(values, dtype=float), name, colour)
    for colour, (name, level) in zip(("#3a9e6e", GREY), panel.levels.items(), strict=False):
        axes.axhline(level, color=colour, linestyle=(0, (5, 4)), linewidth=1.1, label=name)
    axes.yaxis.set_major_formatter(plain_number)
    if panel.log:
        logarithmic(axes)
    style(axes, ink)
    axes.set_xlabel("step")
    axes.set_ylabel(panel.unit)
    if len(panel.series) + len(panel.levels) > 1:
        axes.legend(frameon=False, fontsize=8.5, labelcolor=ink)
    return figure


def draw_series(axes: "Axes", steps: np.ndarray, values: np.ndarray, name: str, colour: str) -> None:
    """A line; a long series as the mean of each bin, before the range from its lowest to its highest value."""
    if len(steps) > MAX_POINTS:
        starts = np.linspace(0, len(steps), MAX_POINTS, endpoint=False).astype(int)
        low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
        sizes = np.diff(starts, append=len(steps))
        steps, values = (np.add.reduceat(array, starts) / sizes for array in (steps, values))
        axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
    marker = "o" if len(steps) <= 40 else ""
    axes.plot(steps, values, color=colour, linewidth=1.5, marker=marker, markersize=3.2, label=name)


def logarithmic(axes: "Axes") -> None:
    """A logarithmic vertical axis with plain numbers at 1, 2 and 5 of each decade (1 only over many decades)."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,)))
    axes.yaxis.set_major_formatter(plain_number)
    axes.yaxis.set_minor_locator(NullLocator())


def style(axes: "Axes", ink: str) -> None:
    """Calm axes: no box, faint horizontal lines, everything in the ink's colour."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color=ink, alpha=0.35)
    axes.tick_params(which="both", color=ink, labelcolor=ink, labelsize=8.5, length=3, width=0.6)
    axes.grid(axis="y", color=ink, alpha=0.12, linewidth=0.8)
    axes.xaxis.label.set(color=ink, size=9)
    axes.yaxis.label.set(color=ink, size=9)
    axes.patch.set_alpha(0)


def plain_number(value: float, position: float | None = None) -> str:
    """A tick's label: 0.0002 and 20 as they are, 2e-05 shortened."""
    return f"{value:.6g}"


def draw_points(rows: Mapping[str, Tensor], real: Tensor | None = None, limit: int = 2000, ink: str = INK) -> "Figure":
    """Scatters beside each other on the same axes; real points behind in grey. First two coordinates of [n, d]."""
    from matplotlib.figure import Figure

    columns = min(len(rows), POINTS_BESIDE)
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(2.9 * columns, 3.1 * lines), layout="constrained")
    every = planar(real if real is not None else next(iter(rows.values())), None)
    reach = 1.15 * np.abs(every).max()
    places = figure.subplots(lines, columns, squeeze=False).flat
    for (name, points), axes in zip(rows.items(), places, strict=False):
        if real is not None:
            axes.scatter(*planar(real, limit).T, s=3, color=GREY, alpha=0.35, linewidths=0, rasterized=True)
        axes.scatter(*planar(points, limit).T, s=3, color=COLOURS[0], alpha=0.6, linewidths=0, rasterized=True)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axes.set_title(name, fontsize=9.5, color=ink)
        style(axes, ink)
    for axes in places:
        axes.set_axis_off()
    return figure


def planar(points: Tensor, limit: int | None) -> np.ndarray:
    """The first two coordinates of the first `limit` points, [n, 2]; a second coordinate of zeros on a line."""
    array = points[:limit].detach().cpu().double().flatten(1).numpy()[:, :2]
    return array if array.shape[1] == 2 else np.pad(array, ((0, 0), (0, 1)))


def render(figure: "Figure", form: Literal["png", "svg"], salt: str = "") -> bytes:
    """A figure as a PNG file on a transparent ground, or as an SVG file with text as text.

    `salt` keeps the ids of several SVG figures on one page apart.
    """
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt or "unistep"}):
        metadata = {"Date": None} if form == "svg" else None
        figure.savefig(buffer, format=form, dpi=144, transparent=True, metadata=metadata)
    return buffer.getvalue()


def inline_svg(file: bytes) -> str:
    """An SVG file as markup inside a page: no prologue, size, metadata or unused ids, ink as `currentColor`."""
    text = file.decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    head, rest = text.split(">", 1)
    text = re.sub(r' (width|height|version|xmlns(:\w+)?)="[^"]*"', "", head) + ">" + rest.replace("xlink:href", "href")
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", text)
    return text.replace(INK, "currentColor").strip()
