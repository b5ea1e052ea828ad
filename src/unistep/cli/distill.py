"""`unistep distill`: teacher in, one-step generator out."""

from typing import Annotated

import typer

from unistep.cli.errors import one_line_errors
from unistep.cli.options import Device, NoCache, Out, Quiet, RecipeOrRun, Seed, Set, Steps


@one_line_errors
def distill(
    recipe: RecipeOrRun, set_: Set = None, out: Out = None, seed: Seed = None, steps: Steps = None,
    device: Device = "auto",
    recompute: Annotated[bool, typer.Option("--recompute", help="Measure the teacher anew instead of using stored features.")] = False,  # noqa: E501
    no_cache: NoCache = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Turn a teacher into a one-step generator: pairs, training, evaluation, report. Run it again to go on."""
    from unistep import api

    api.distill(
        recipe, out=out, overrides=set_ or (), seed=seed, steps=steps, device=device, recompute=recompute,
        cache=not no_cache, quiet=quiet,
    )  # fmt: skip
