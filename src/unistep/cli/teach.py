"""`unistep teach`: trains a teacher on the user's images."""

from unistep.cli.errors import one_line_errors
from unistep.cli.options import Device, Out, Quiet, RecipeArgument, Seed, Set


@one_line_errors
def teach(
    recipe: RecipeArgument, set_: Set = None, out: Out = None, seed: Seed = None, device: Device = "auto",
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Train a teacher on images, for when there is no pretrained model. Run it again to go on."""
    from unistep import api

    api.teach(recipe, out=out, overrides=set_ or (), seed=seed, device=device, quiet=quiet)
