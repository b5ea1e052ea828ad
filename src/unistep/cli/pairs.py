"""`unistep pairs`: solves the teacher's ODE from seeds and stores noise-image pairs."""

from unistep.cli.errors import one_line_errors
from unistep.cli.options import Device, Out, Quiet, RecipeArgument, Set


@one_line_errors
def pairs(
    recipe: RecipeArgument, set_: Set = None, out: Out = None, device: Device = "auto", quiet: Quiet = False
) -> None:
    """Make a recipe's noise-image pairs from the teacher. Run it again to go on."""
    from unistep import api

    api.make_pairs(recipe, out=out, overrides=set_ or (), device=device, quiet=quiet)
