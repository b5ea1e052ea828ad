"""The table of an evaluation, for the terminal, for Markdown and for HTML, from the same cells."""

from dataclasses import dataclass
from html import escape

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from unistep.evaluation.result import Evaluation
from unistep.reports.columns import columns_of


@dataclass(frozen=True, kw_only=True)
class Cells:
    """A table as text.

    Attributes:
        titles: headings, the first one empty (names of the rows).
        rows: cells, as long as the titles.
        roles: of the rows.
        legend: heading and meaning of each column but the first.
        note: what the figures are of.
    """

    titles: list[str]
    rows: list[list[str]]
    roles: list[str]
    legend: list[tuple[str, str]]
    note: str


ARROWS = {"lower": " \u2193", "higher": " \u2191", "": ""}


def cells(evaluation: Evaluation) -> Cells:
    """The table of an evaluation as text."""
    columns = columns_of(evaluation)
    return Cells(
        titles=["", *(c.title + ARROWS[c.better] for c in columns)],
        rows=[[row.name, *(c.cell(row) for c in columns)] for row in evaluation.rows],
        roles=[row.role for row in evaluation.rows],
        legend=[(c.title, c.meaning) for c in columns],
        note=note(evaluation),
    )


def note(evaluation: Evaluation) -> str:
    """Sample counts, seeds, reference, judge, device, and what is missing, in one line."""
    counts = sorted({row.num_samples for row in evaluation.rows})
    sizes = " to ".join(f"{n:,}" for n in dict.fromkeys([counts[0], counts[-1]])) if counts else "0"
    starts = sorted({row.first_seed for row in evaluation.rows if row.first_seed is not None})
    parts = [f"{sizes} samples per row", f"against {evaluation.reference}{short(evaluation.reference_sha256)}"]
    parts += [f"seeds from {', '.join(str(s) for s in starts)}"] if starts else []
    named = ": ".join(filter(None, ("judge", evaluation.judge_title)))
    parts += [named + short(evaluation.judge)] if evaluation.judge else []
    if evaluation.alignment:
        parts += [f"prompts held against images by {evaluation.alignment_title}{short(evaluation.alignment)}"]
    stored = [row.name for row in evaluation.rows if row.cached]
    parts += [f"stored features: {', '.join(stored)}"] if stored else []
    timings = [row.timing for row in evaluation.rows if row.timing is not None]
    devices = {f"timed on {t.device}, {t.threads} thread{'s' * (t.threads > 1)}" for t in timings}
    return "; ".join([*parts, *sorted(devices), *evaluation.notes])


def short(sha256: str) -> str:
    """The beginning of a hash in brackets, or nothing."""
    return f" ({sha256[:12]})" if sha256 else ""


STYLES = {"student": "bold", "floor": "dim", "solver": "dim"}


def to_rich(text: Cells) -> Table:
    """A table for `rich.print`, one row per model; the student's row stands out."""
    table = Table(header_style="bold", pad_edge=False)
    for i, title in enumerate(text.titles):
        table.add_column(title, justify="left" if i == 0 else "right", no_wrap=i > 0)
    for row, role in zip(text.rows, text.roles, strict=True):
        table.add_row(*row, style=STYLES.get(role))
    return table


def to_rich_upright(text: Cells) -> Table:
    """The same table turned, one column per model, for narrow terminals."""
    table = Table(header_style="bold", pad_edge=False, padding=(0, 1, 0, 0), box=SIMPLE_HEAD)
    table.add_column("")
    for row, role in zip(text.rows, text.roles, strict=True):
        table.add_column(row[0], justify="right", style=STYLES.get(role, ""))
    for i, title in enumerate(text.titles[1:], start=1):
        table.add_row(title, *(row[i] for row in text.rows))
    return table


def print_table(evaluation: Evaluation, console: Console | None = None) -> None:
    """Prints the table and its note; turned where the terminal is too narrow."""
    console, text = console or Console(), cells(evaluation)
    table = to_rich(text)
    console.print(table if width(table, console) <= console.width else to_rich_upright(text))
    console.print(text.note, style="dim", highlight=False)


def width(table: Table, console: Console) -> int:
    """Columns of a terminal that a table needs."""
    return console.measure(table, options=console.options.update(max_width=10_000)).maximum


def to_markdown(evaluation: Evaluation) -> str:
    """A Markdown table with its note below."""
    text = cells(evaluation)
    lines = ["| " + " | ".join(row) + " |" for row in [text.titles, *text.rows]]
    lines.insert(1, "|---|" + "---:|" * (len(text.titles) - 1))
    return "\n".join(lines) + f"\n\n{text.note}\n"


def to_html(evaluation: Evaluation) -> str:
    """A `<table>` whose rows carry their role as class."""
    return html_table(cells(evaluation))


def html_table(text: Cells) -> str:
    """A `<table>` whose rows carry their role as class."""
    meanings = ["", *(meaning for _, meaning in text.legend)]
    head = "".join(
        f'<th scope="col" title="{escape(meaning)}">{escape(title)}</th>'
        for title, meaning in zip(text.titles, meanings, strict=True)
    )
    body = "\n".join(html_row(row, role) for row, role in zip(text.rows, text.roles, strict=True))
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def html_row(row: list[str], role: str) -> str:
    """One `<tr>`; short numbers do not break."""
    name, *rest = (escape(cell) for cell in row)
    return f'<tr class="{role}"><th scope="row">{name}</th>' + "".join(f"<td>{cell}</td>" for cell in rest) + "</tr>"
