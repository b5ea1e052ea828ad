"""The table of a comparison: means over seeds with their spread, and what each entry cost."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console

from unistep.evaluation.comparison import ComparedRow, Comparison
from unistep.reports.columns import NOTHING, PLUS_MINUS, count, percent, share, significant
from unistep.reports.table import ARROWS, Cells, to_rich, width

Form = Callable[[float], str]


@dataclass(frozen=True, kw_only=True)
class ComparedColumn:
    """One column: numbers of a row (one per seed), how they are written, which way is better."""

    title: str
    meaning: str
    values: Callable[[ComparedRow], Sequence[float]]
    form: Form = significant
    better: str = ""

    def cell(self, row: ComparedRow) -> str:
        """Mean and standard deviation over seeds; the number alone where there is one."""
        return spread(self.values(row), self.form)


def spread(values: Sequence[float], form: Form) -> str:
    """`mean +- standard deviation` of a sample."""
    if not values:
        return NOTHING
    mean = form(statistics.fmean(values))
    return mean if len(values) == 1 else f"{mean} {PLUS_MINUS} {alike(statistics.stdev(values), mean, form)}"


def alike(value: float, mean: str, form: Form) -> str:
    """A deviation with as many decimals as its mean."""
    if form is not significant or "e" in mean:
        return form(value)
    return f"{value:,.{len(mean.partition('.')[2])}f}"


def figure(name: str, title: str, meaning: str, better: str, form: Form = significant) -> ComparedColumn:
    """A column of one of the rows' figures."""
    return ComparedColumn(
        title=title, meaning=meaning, better=better, form=form, values=lambda row: row.figures.get(name, [])
    )


def short(value: float) -> str:
    """A whole number as such, a mean of whole numbers with decimals."""
    return f"{value:.3g}"


def thousandfold(value: float) -> str:
    """KID, times 1000."""
    return f"{1e3 * value:.2f}"


FIGURES = (
    figure("frechet", "FD", "Frechet distance in the judge's features", "lower"),
    figure("kid", "KID x1e3", "kernel distance times 1000", "lower", thousandfold),
    figure("precision", "precision", "share of samples that lie among real images", "higher", share),
    figure("recall", "recall", "share of real images that lie among samples", "higher", share),
    figure("coverage", "coverage", "share of real neighbourhoods that hold a sample", "higher", share),
    figure("agreement", "class", "share of samples that the judge takes for the class asked for", "higher", percent),
    figure("alignment", "CLIP", "mean cosine of image and prompt, to the eyes of a CLIP", "higher", share),
    figure("energy", "energy", "energy distance, squared form", "lower"),
    figure("sliced_wasserstein", "sliced W1", "sliced Wasserstein distance", "lower"),
    figure("modes", "modes", "modes that hold a quarter of their share or more", "higher", short),
)

COSTS = (
    ComparedColumn(
        title="NFE", meaning="network evaluations per sample", better="lower", form=count,
        values=lambda row: [] if row.nfe is None else [row.nfe],
    ),
    ComparedColumn(
        title="ms", meaning="milliseconds for one sample alone", better="lower", values=lambda row: row.latency_ms
    ),
    ComparedColumn(
        title="steps", meaning="training steps", form=count, values=lambda row: [] if row.steps is None else [row.steps]
    ),
    ComparedColumn(
        title="evaluations", meaning="network evaluations of pairs and training", form=count,
        values=lambda row: [] if row.evaluations is None else [row.evaluations],
    ),
    ComparedColumn(title="minutes", meaning="wall time of pairs and training", values=lambda row: row.minutes),
    ComparedColumn(
        title="GB", meaning="memory at the peak of a training step (on a CPU of the whole process)",
        values=lambda row: [] if row.memory is None else [row.memory / 1e9],
    ),
)  # fmt: skip


def cells(comparison: Comparison, of: Sequence[ComparedColumn] = (*FIGURES, *COSTS)) -> Cells:
    """The table as text; columns in which no row has a number are left out."""
    columns = [c for c in of if any(c.values(row) for row in comparison.rows)]
    titles = [comparison.distance if c is FIGURES[0] else c.title for c in columns]
    return Cells(
        titles=["", *(title + ARROWS[c.better] for title, c in zip(titles, columns, strict=True))],
        rows=[[row.name, *(c.cell(row) for c in columns)] for row in comparison.rows],
        roles=[row.role for row in comparison.rows],
        legend=[(title, c.meaning) for title, c in zip(titles, columns, strict=True)],
        note=note(comparison),
    )


def note(comparison: Comparison) -> str:
    """Budget, seeds and what is missing, in one line."""
    seeds = {tuple(row.runs) for row in comparison.rows if row.runs}
    several = any(len(runs) > 1 for runs in seeds)
    behind = [f"{PLUS_MINUS} is the standard deviation over seeds"] if several else []
    parts = [comparison.budget, *behind, *comparison.notes]
    without: dict[str, list[str]] = {}
    for name, reason in comparison.missing.items():
        without.setdefault(reason, []).append(name)
    return "; ".join([*parts, *(f"{', '.join(names)}: {reason}" for reason, names in without.items())])


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """Prints the table and its note; figures and costs below each other where the terminal is too narrow."""
    console = console or Console()
    whole = cells(comparison)
    fits = width(to_rich(whole), console) <= console.width
    for text in [whole] if fits else [cells(comparison, FIGURES), cells(comparison, COSTS)]:
        console.print(to_rich(text))
    console.print(whole.note, style="dim", highlight=False)
