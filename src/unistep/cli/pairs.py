"""`unistep pairs`: solves the teacher's ODE from seeds and stores noise-image pairs."""

from typing import Annotated

import typer

from unistep.cli.errors import one_line_errors
from unistep.cli.options import Device, Out, Quiet, RecipeArgument, Set


@one_line_errors
def pairs(
    recipe: RecipeArgument,
    set_: Set = None,
    out: Out = None,
    solver: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A solver in the place of the recipe's; `auto` takes the cheapest that keeps to a tolerance.",
        ),
    ] = None,  # noqa: E501
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Make a recipe's noise-image pairs from the teacher. Run it again to go on."""
    from unistep import api

    api.make_pairs(recipe, out=out, overrides=set_ or (), solver=solver, device=device, quiet=quiet)
