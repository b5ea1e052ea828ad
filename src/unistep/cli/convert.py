"""`unistep convert`: a foreign checkpoint to safetensors and a configuration, nothing executed."""

from pathlib import Path
from typing import Annotated

import typer

from unistep.cli.errors import one_line_errors
from unistep.cli.options import Quiet


@one_line_errors
def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An EDM checkpoint (.pkl).")],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to write.  [default: beside FILE]")] = None,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Turn an EDM checkpoint into safetensors and a configuration. Nothing in the file is executed."""
    from unistep import api

    folder = api.convert(file, out=out)
    if not quiet:
        typer.echo(folder)
