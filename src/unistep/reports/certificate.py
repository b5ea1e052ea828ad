"""A certificate as a table: on the terminal and in the report."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from unistep.teacher_checks.certificate import Certificate


def rows(certificate: Certificate) -> list[tuple[str, str, str, str, str]]:
    """Name, verdict, figure, limit and words of each check."""
    return [
        (c.name, "passed" if c.passed else "FAILED", "" if c.figure is None else f"{c.figure:.3g}", c.limit, c.words)
        for c in certificate.checks
    ]


def print_certificate(certificate: Certificate, console: Console | None = None) -> None:
    """The checks of a teacher on the terminal."""
    verdict = "FAILED" if certificate.failed else "passed"
    title = f"{certificate.source}: {verdict}, on {certificate.samples:,} of its own samples"
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", title_style="bold")
    for column in ("check", "", "figure", "limit", "what was found"):
        table.add_column(column, justify="right" if column == "figure" else "left")
    for row in rows(certificate):
        table.add_row(*row, style="red" if row[1] == "FAILED" else "")
    (console or Console()).print(table)
