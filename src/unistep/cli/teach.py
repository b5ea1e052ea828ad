"""`unistep teach`: trains a teacher on the user's images."""

from unistep.cli.errors import one_line_errors
from unistep.cli.options import Device, Out, Quiet, RecipeOrRun, Seed, Set, Steps


@one_line_errors
def teach(
    recipe: RecipeOrRun, set_: Set = None, out: Out = None, seed: Seed = None, steps: Steps = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Train a teacher on images, for when there is no pretrained model. Run it again to go on."""
    from unistep import api

    api.teach(recipe, out=out, overrides=set_ or (), seed=seed, steps=steps, device=device, quiet=quiet)
