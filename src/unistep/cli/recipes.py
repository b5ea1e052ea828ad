"""`unistep recipes`: lists the built-in recipes, prints one to copy and edit, or what a recipe resolves to."""

from typing import Annotated

import typer

from unistep.cli.completion import complete_recipe
from unistep.cli.errors import one_line_errors
from unistep.cli.options import Set
from unistep.recipes import builtin_recipes, read_recipe
from unistep.recipes.smoke import SUFFIX, is_smoke, smoke_forms


@one_line_errors
def recipes(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[RECIPE]", help="A recipe to print: a built-in name or a YAML file.", autocompletion=complete_recipe),  # noqa: E501
    ] = None,
    set_: Set = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="Print every value and where it comes from. Always so for a file, a smoke form, or with --set.")] = False,  # noqa: E501
) -> None:  # fmt: skip
    """List the built-in recipes; print one as YAML to copy and edit; or print what a recipe resolves to."""
    known = builtin_recipes()
    if name is None:
        list_recipes(known)
    elif name in known and not resolved and not set_ and not is_smoke(name):
        typer.echo(read_recipe(name)[0], nl=False)
    else:
        from unistep.recipes.resolved import resolved_recipe

        typer.echo(resolved_recipe(name, set_ or ()), nl=False)


def list_recipes(known: dict[str, str]) -> None:
    """Prints the recipes by purpose, each with what it costs and its line about itself."""
    names, costs = max(map(len, known)), max(len(header(text, "Cost")) for text in known.values())
    groups = sorted({header(text, "Group") for text in known.values()}, key=group_rank)
    for group in groups:
        typer.echo(f"{group[:1].upper()}{group[1:]}")
        for name, text in known.items():
            if header(text, "Group") == group:
                typer.echo(f"  {name:<{names}}  {header(text, 'Cost'):<{costs}}  {about(text)}")
        typer.echo()
    typer.echo("Costs were measured on CPUs; `unistep plan RECIPE` measures one here before anything runs.")
    forms = ", ".join(f"{recipe}{SUFFIX}" for recipe in smoke_forms(known))
    typer.echo(f"Smoke forms, every stage in seconds: {forms}")


GROUPS = ("toy points", "digits", "Fashion-MNIST", "images of the paper", "text to image", "teachers", "comparisons")


def group_rank(group: str) -> tuple[int, str]:
    """The place of a group in the list; an unknown one comes last."""
    return (GROUPS.index(group) if group in GROUPS else len(GROUPS), group)


def header(text: str, key: str) -> str:
    """What a line `# Key: ...` at the head of a recipe says."""
    return next((line.partition(": ")[2] for line in text.splitlines() if line.startswith(f"# {key}: ")), "")


def about(text: str) -> str:
    """The recipe's own line about itself."""
    return next((line.removeprefix("about:").strip() for line in text.splitlines() if line.startswith("about:")), "")
