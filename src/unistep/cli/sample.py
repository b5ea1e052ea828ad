"""`unistep sample`: images from seeds and labels."""

from pathlib import Path
from typing import Annotated

import typer

from unistep.cli.errors import one_line_errors
from unistep.cli.options import Checkpoint, Device, Quiet


@one_line_errors
def sample(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN_OR_EXPORT", help="A run, a generator's folder, an export of one, or a teacher."),
    ],
    num: Annotated[int, typer.Option("--num", "-n", min=1, max=10_000_000, help="How many.")] = 64,
    first_seed: Annotated[
        int, typer.Option("--first-seed", min=0, max=2**62, help="Seeds count up from here.")
    ] = 2_000_000,
    label: Annotated[list[str] | None, typer.Option(help="A class, by name or index; may be repeated.")] = None,
    prompts: Annotated[
        str | None, typer.Option(metavar="FILE", help="Other prompts, for models taught on captions, in turn.")
    ] = None,
    files: Annotated[bool, typer.Option("--files", help="One file per image beside the grid.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to write.  [default: RUN/samples]")] = None,
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Draw samples from a one-step generator (or a teacher): a grid, and files if asked."""
    from unistep import api

    written = api.sample(
        run, num=num, first_seed=first_seed, labels=label, prompts=prompts, files=files, out=out,
        checkpoint=checkpoint, device=device, quiet=quiet,
    )  # fmt: skip
    if not quiet:
        typer.echo(written)
