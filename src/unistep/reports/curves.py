"""Which curves a run's metrics make: panels of named series over steps."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from unistep.evaluation.result import Evaluation

Series = dict[str, tuple[list[int], list[float]]]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One figure.

    Attributes:
        title: what it shows.
        unit: label of the vertical axis.
        series: name -> steps and values.
        log: whether the vertical axis is logarithmic.
        levels: name -> value, drawn as a horizontal line for comparison.
    """

    title: str
    unit: str
    series: Series
    log: bool = False
    levels: Mapping[str, float] = field(default_factory=dict)


def panels(lines: Iterable[Mapping[str, Any]], evaluation: Evaluation | None = None) -> list[Panel]:
    """The panels that the lines of metrics.jsonl have values for, distances first."""
    every = collect(lines)
    panels = [
        distance_panel(every, "frechet", "Frechet distance", evaluation),
        distance_panel(every, "energy", "Energy distance", evaluation),
        panel("Class agreement during training", "share", pick(every, "evaluation", "agreement")),
        panel("Losses of the generator", "loss per sample", losses(every), log=True),
        panel("Denoising loss", "loss per sample", denoising(every), log=True),
        panel("Gradient norms before clipping", "norm", pick(every, "grad_norm"), log=True),
        panel("Learning rates", "rate", pick(every, "lr")),
        panel("Samples during training", "pixel or point value", pick(every, "samples", "mean", "std")),
    ]
    return [p for p in panels if p is not None]


def collect(lines: Iterable[Mapping[str, Any]]) -> Series:
    """name -> steps and values, for all finite numbers; `phase/what` and `what/phase` both come out as `what/phase`."""
    found: Series = {}
    for line in lines:
        for name, value in line.items():
            if name == "step" or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if math.isfinite(value):
                steps, values = found.setdefault(name, ([], []))
                steps.append(line["step"])
                values.append(value)
    return found


def pick(every: Series, group: str, *names: str) -> Series:
    """The series of a group under their short, readable names; all of them if none is named."""
    found = {name.removeprefix(f"{group}/"): series for name, series in every.items() if name.startswith(f"{group}/")}
    return {name.replace("_", " "): series for name, series in found.items() if not names or name in names}


def losses(every: Series) -> Series:
    """All terms but the denoising loss, which has a panel of its own."""
    return {name: series for name, series in pick(every, "loss").items() if name != "denoise"}


def denoising(every: Series) -> Series:
    """The denoising loss; beside it the teacher's on the same noised samples, where the method logs it."""
    learner = "fake score" if "loss/dm" in every else "network"
    found = {learner: every["loss/denoise"]} if "loss/denoise" in every else {}
    if "teacher_denoise" in every:
        found["teacher, same samples"] = every["teacher_denoise"]
    return found


def panel(title: str, unit: str, series: Series, log: bool = False) -> Panel | None:
    """A panel, or None without values; logarithmic only where it helps and every value is above zero."""
    if not series:
        return None
    every = [value for _, values in series.values() for value in values]
    return Panel(title=title, unit=unit, series=series, log=log and 0 < min(every) < max(every) / 5)


def distance_panel(every: Series, name: str, title: str, evaluation: Evaluation | None) -> Panel | None:
    """A distance over steps, with the teacher's and the floor's final values as levels."""
    series = pick(every, "evaluation", name)
    found = panel(f"{title} during training", title.lower(), series, log=True)
    if found is None:
        return None
    rows = [] if evaluation is None else [evaluation.row("teacher"), evaluation.row("floor")]
    levels = {row.name: row.figures[name] for row in rows if row is not None and row.figures.get(name, 0) > 0}
    drawn = {"student" if evaluation and evaluation.row("student") else title.lower(): series[name]}
    return Panel(title=found.title, unit=found.unit, series=drawn, log=found.log, levels=levels)
