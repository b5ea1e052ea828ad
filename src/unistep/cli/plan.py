"""`unistep plan`: memory, disk, network evaluations and hours before anything runs."""

from typing import Annotated

import typer

from unistep.cli.errors import one_line_errors
from unistep.cli.options import Device, Out, Quiet, RecipeArgument, Set

DOES_NOT_FIT = 1


@one_line_errors
def plan(
    recipe: RecipeArgument, set_: Set = None, out: Out = None, device: Device = "auto",
    memory: Annotated[float | None, typer.Option(min=0, metavar="GIB", help="Memory to fit into.  [default: what is available]")] = None,  # noqa: E501
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Say what a recipe takes: memory, disk, network evaluations, hours. Nothing runs; code 1 if it does not fit."""
    from unistep import api

    found = api.plan(recipe, out=out, overrides=set_ or (), device=device, memory=memory, quiet=quiet or json)
    if json:
        typer.echo(found.json())
    if not found.fits:
        raise typer.Exit(DOES_NOT_FIT)
