"""The command line: one file per verb, each a thin wrapper around the function of the same name in `unistep.api`."""

from typing import Annotated

import typer

import unistep
from unistep.cli.certify import certify
from unistep.cli.compare import compare
from unistep.cli.convert import convert
from unistep.cli.distill import distill
from unistep.cli.evaluate import evaluate
from unistep.cli.export import export
from unistep.cli.pairs import pairs
from unistep.cli.plan import plan
from unistep.cli.recipes import recipes
from unistep.cli.sample import sample
from unistep.cli.teach import teach

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
