"""`unistep recipes`: lists the built-in recipes, or prints one to copy and edit."""

from typing import Annotated

import typer

from unistep.cli.errors import one_line_errors
from unistep.recipes import builtin_recipes, read_recipe
from unistep.recipes.smoke import SUFFIX, smoke_forms, without_form


@one_line_errors
def recipes(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A recipe to print as YAML.")] = None,
) -> None:
    """List the built-in recipes, or print one as YAML to copy and edit."""
    if name is not None:
        text, _ = read_recipe(without_form(name))
        typer.echo(text, nl=False)
        return
    known = builtin_recipes()
    width = max(map(len, known))
    for recipe, text in known.items():
        typer.echo(f"{recipe:<{width}}  {about(text)}")
    forms = ", ".join(f"{recipe}{SUFFIX}" for recipe in smoke_forms(known))
    typer.echo(f"\nSmoke forms, every stage in seconds: {forms}")


def about(text: str) -> str:
    """The recipe's own line about itself."""
    return next((line.removeprefix("about:").strip() for line in text.splitlines() if line.startswith("about:")), "")
