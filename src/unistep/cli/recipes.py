"""`unistep recipes`: lists the built-in recipes, or prints one to copy and edit."""

from typing import Annotated

import typer

from unistep.cli.errors import one_line_errors
from unistep.recipes import builtin_recipes, read_recipe
from unistep.recipes.smoke import SUFFIX, has_smoke_form, without_form


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
    short = [recipe for recipe, text in known.items() if has_smoke_form(text)]
    typer.echo(
        f"\nIn seconds, to see that everything is in place: {', '.join(f'{recipe}{SUFFIX}' for recipe in short)}"
    )


def about(text: str) -> str:
    """The recipe's own line about itself."""
    return next((line.removeprefix("about:").strip() for line in text.splitlines() if line.startswith("about:")), "")
