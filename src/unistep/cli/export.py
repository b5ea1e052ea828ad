"""`unistep export`: a generator for diffusers, onnxruntime, ComfyUI or as one file, proven before it is there."""

from pathlib import Path
from typing import Annotated

import typer

from unistep.cli.errors import one_line_errors
from unistep.cli.options import Checkpoint, Quiet, RunArgument


@one_line_errors
def export(
    run: RunArgument,
    to: Annotated[
        str,
        typer.Option("--to", metavar="FORM", help="diffusers, safetensors, onnx, comfy, lora-peft or lora-comfyui."),
    ],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to write.  [default: RUN/export-FORM]")] = None,
    checkpoint: Checkpoint = None,
    quiet: Quiet = False,
) -> None:
    """Write a generator for other libraries; a fresh process must draw the same samples from it first."""
    from unistep import api

    folder = api.export_generator(run, to=to, out=out, checkpoint=checkpoint, quiet=quiet)
    if not quiet:
        typer.echo(folder)
