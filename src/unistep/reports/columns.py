"""The columns of an evaluation table: which figures, in which units, which way is better."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from unistep.evaluation.result import Evaluation, Row

PLUS_MINUS = "\u00b1"
NOTHING = "\u2013"  # stands where a row has no such figure


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column.

    Attributes:
        title: short heading.
        meaning: one line for the legend; empty for what needs none.
        value: row -> number, or None where the row has none.
        text: number and row -> cell.
        better: `lower`, `higher`, or empty where neither is.
    """

    title: str
    meaning: str
    value: Callable[[Row], float | None]
    text: Callable[[float, Row], str]
    better: str = ""

    def cell(self, row: Row) -> str:
        """The cell of a row."""
        value = self.value(row)
        return NOTHING if value is None else self.text(value, row)


def significant(value: float, digits: int = 3) -> str:
    """A number to three significant digits, without an exponent where it can be read without."""
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    decimals = digits
    if value:
        decimals = max(0, digits - 1 - int(f"{abs(value):e}".split("e")[1]))
    return f"{value:,.{decimals}f}"


def figure(name: str, title: str, meaning: str, better: str, form: Callable[[float], str] = significant) -> Column:
    """A column of one of the row's figures."""
    return Column(
        title=title, meaning=meaning, better=better, value=lambda row: row.figures.get(name),
        text=lambda value, row: form(value),
    )  # fmt: skip


def share(value: float) -> str:
    """A number around 0..1 to three decimals."""
    return f"{value:.3f}"


def percent(value: float) -> str:
    """A share as a percentage."""
    return f"{100 * value:.1f} %"


def count(value: float) -> str:
    """A whole number."""
    return f"{round(value):,}"


def kid_text(value: float, row: Row) -> str:
    """KID times 1000 with the deviation over subsets."""
    decimals = 2 if abs(value) < 0.1 else 0
    return f"{1e3 * value:.{decimals}f} {PLUS_MINUS} {1e3 * row.figures.get('kid_sd', 0.0):.{decimals}f}"


IMAGES = (
    figure("frechet", "FD", "Frechet distance in the judge's features", "lower"),
    Column(
        title="KID x1e3", meaning="kernel distance times 1000, with the deviation over subsets", better="lower",
        value=lambda row: row.figures.get("kid"), text=kid_text,
    ),
    figure("precision", "precision", "share of samples that lie among real images", "higher", share),
    figure("recall", "recall", "share of real images that lie among samples", "higher", share),
    figure("density", "density", "how many real neighbourhoods hold a sample, over k", "higher", share),
    figure("coverage", "coverage", "share of real neighbourhoods that hold a sample", "higher", share),
    figure("agreement", "class", "share of samples that the judge takes for the class asked for", "higher", percent),
    figure("alignment", "CLIP", "mean cosine of image and prompt, to the eyes of the CLIP below", "higher", share),
    figure("diversity", "diversity", "distance between samples of a class, over that of real images", "", share),
)  # fmt: skip

POINTS = (
    figure("modes", "modes", "modes that hold a quarter of their share or more", "higher", count),
    figure("high_quality", "near a mode", "share within four standard deviations of a mode", "higher", percent),
    figure("energy", "energy", "energy distance, squared form", "lower"),
    figure("sliced_wasserstein", "sliced W1", "sliced Wasserstein distance", "lower"),
)

COST = (
    Column(
        title="NFE", meaning="network evaluations per sample", better="lower", value=lambda row: row.nfe,
        text=lambda value, row: count(value),
    ),
    Column(
        title="ms", meaning="milliseconds for one sample alone", better="lower",
        value=lambda row: row.timing and row.timing.latency_ms, text=lambda value, row: significant(value),
    ),
    Column(
        title="per s", meaning="samples per second at the best batch size", better="higher",
        value=lambda row: row.timing and row.timing.images_per_second, text=lambda value, row: significant(value),
    ),
)  # fmt: skip


def columns_of(evaluation: Evaluation) -> list[Column]:
    """The columns in which at least one row has a figure; the distance under the name that the judge gives it."""
    images = (replace(IMAGES[0], title=evaluation.distance), *IMAGES[1:])
    every = (*(images if evaluation.kind == "images" else POINTS), *COST)
    return [c for c in every if any(c.value(row) is not None for row in evaluation.rows)]
