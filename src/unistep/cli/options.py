"""The options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

from unistep.cli.completion import complete_recipe, complete_set

RecipeArgument = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="A built-in recipe's name or a YAML file.", autocompletion=complete_recipe),
]
RecipeOrRun = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A recipe's name, a YAML file, or the folder of a run to continue.",
        autocompletion=complete_recipe,
    ),
]
Steps = Annotated[
    int | None, typer.Option("--steps", min=1, help="Of a run to continue: add so many steps to its training.")
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, or the generator folder inside it.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Override a value of the recipe; may be repeated.",
        autocompletion=complete_set,
    ),
]
Checkpoint = Annotated[
    str | None,
    typer.Option(
        metavar="best|last|step-N", help="A checkpoint of the training, written to a folder of its own first."
    ),
]
NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Neither use nor keep the teacher's features in the cache of all runs.")
]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Where to write.  [default: runs/<recipe>]")]
Seed = Annotated[int | None, typer.Option(min=0, max=2**63 - 1, help="Seed of the training; overrides the recipe's.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
