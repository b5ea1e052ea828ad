"""`unistep certify`: is a teacher read as it was trained, asked of itself."""

from pathlib import Path
from typing import Annotated

import typer

from unistep.cli.errors import one_line_errors
from unistep.cli.options import Device, Quiet


@one_line_errors
def certify(
    teacher: Annotated[str, typer.Argument(metavar="TEACHER", help="edm:PATH, embedded:NAME, gaussians:NAME, a checkpoint folder or a run of teach.")],  # noqa: E501
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the certificate there, as JSON.")] = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Ask a teacher what a denoiser must answer: is it read as it was trained? Needs no data. Fails if it is not."""
    from unistep import api

    api.certify(teacher, out=out, device=device, quiet=quiet).require()
