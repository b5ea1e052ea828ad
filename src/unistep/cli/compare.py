"""`unistep compare`: one teacher through several methods at equal budget."""

from typing import Annotated

import typer

from unistep.cli.errors import one_line_errors
from unistep.cli.options import Device, Out, Quiet, RecipeArgument, Set


@one_line_errors
def compare(
    recipe: RecipeArgument, set_: Set = None, out: Out = None,
    only: Annotated[list[str] | None, typer.Option("--only", metavar="ENTRY", help="Run this entry now (or `solvers`); may be repeated.")] = None,  # noqa: E501
    device: Device = "auto", quiet: Quiet = False,
) -> None:  # fmt: skip
    """Put one teacher through several methods at equal budget: one table, one figure, one page. Run again to go on."""
    from unistep import api

    api.compare(recipe, out=out, overrides=set_ or (), only=only or (), device=device, quiet=quiet)
