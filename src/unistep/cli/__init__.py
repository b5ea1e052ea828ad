"""The command line: commands, their options, shell completion, and errors as one line each.

Here belongs what is particular to a terminal; what a command does is a function of `unistep.api`.
"""

from typing import Annotated

import typer

import unistep
from unistep.cli.commands import certify, compare, convert, distill, evaluate, export, pairs, plan, sample, teach
from unistep.cli.recipes import recipes

app = typer.Typer(
    help="Turn a pretrained diffusion model into a generator that needs one network evaluation.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (recipes, plan, teach, pairs, distill, sample, evaluate, compare, export, convert, certify):
    app.command()(verb)


def print_version(wanted: bool) -> None:
    """Prints the version and ends the program, where it was asked for."""
    if wanted:
        typer.echo(f"unistep {unistep.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    """Turn a pretrained diffusion model into a generator that needs one network evaluation."""
