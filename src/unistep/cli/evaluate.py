"""`unistep evaluate`: the generator beside its teacher, with distances, NFE and latency."""

from typing import Annotated

import typer

from unistep.cli.errors import one_line_errors
from unistep.cli.options import Checkpoint, Device, NoCache, Quiet, RunArgument, Set


@one_line_errors
def evaluate(
    run: RunArgument, set_: Set = None, checkpoint: Checkpoint = None, device: Device = "auto",
    recompute: Annotated[bool, typer.Option("--recompute", help="Measure the teacher anew instead of using stored features.")] = False,  # noqa: E501
    no_cache: NoCache = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Measure a run: floor, teacher, teacher at one step and generator, then write its report."""
    from unistep import api

    api.evaluate(
        run, overrides=set_ or (), checkpoint=checkpoint, device=device, recompute=recompute, cache=not no_cache,
        quiet=quiet,
    )  # fmt: skip
