"""Completion in the shell: names of recipes, and the settings and values of `--set`."""

import io
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from pathlib import Path

import typer

from unistep.recipes import builtin_recipes
from unistep.recipes.smoke import SUFFIX, smoke_forms

VARIABLE, IN_BASH = "_UNISTEP_COMPLETE", "complete_bash"
BREAKS = ("=", ":")
"""Characters at which bash ends a word: `training.precision=fp32` is three words to it, `digits:smoke` too."""


def complete_recipe(incomplete: str) -> list[str]:
    """The built-in recipes, and their smoke forms once a name is written out; files are left to the shell."""
    known = builtin_recipes()
    names = [*known, *(f"{name}{SUFFIX}" for name in smoke_forms(known) if incomplete.startswith(name))]
    return [name for name in names if name.startswith(incomplete)]


def complete_set(ctx: typer.Context, incomplete: str) -> list[str]:
    """The settings that `--set` may change for the recipe or run on the command line, and their values."""
    from unistep.errors import UserError

    try:
        return candidates(named_recipe(ctx), ctx.params.get("set_") or (), incomplete)
    except (UserError, OSError):  # a recipe that cannot be read has no settings to offer
        return []


def named_recipe(ctx: typer.Context) -> str | None:
    """The recipe on the command line, or that of the run; before an unfinished option it is left in `ctx.args`."""
    place = next((ctx.params[key] for key in ("recipe", "name", "run") if ctx.params.get(key)), None)
    place = place or next(iter(ctx.args), None)
    if place is None:
        return None
    return str(Path(place) / "recipe.yaml" if Path(place).is_dir() else place)


def candidates(recipe: str | None, overrides: Iterable[str], incomplete: str) -> list[str]:
    """Words that begin as `incomplete` does: settings as `path=`, and once one is chosen its values."""
    from unistep.recipes.load import settings_of_recipe

    keys, values = settings_of_recipe(recipe, overrides)
    path, equals, _ = incomplete.partition("=")
    matching = [key for key in keys if key.startswith(path)]
    if not equals and len(matching) != 1:
        return [f"{key}=" for key in matching]
    key = path if equals else matching[0]
    present = [values[key]] if key in values else []
    words = [f"{key}={value}" for value in keys.get(key) or present]
    return [word for word in words if word.startswith(incomplete)] + ([] if equals or keys[key] else [f"{key}="])


def complete_in_bash(program: Callable[[], None]) -> None:
    """Runs the program to complete the words of bash, put together again where bash took them apart (`BREAKS`).

    Bash replaces only its own last word, so that what it has of ours already is left out of the answer.
    """
    words, cursor = os.environ.get("COMP_WORDS", "").split("\n"), int(os.environ.get("COMP_CWORD", "0"))
    joined = join_words([*words, *[""] * (cursor + 1 - len(words))][: cursor + 1])
    os.environ |= {"COMP_WORDS": "\n".join(joined), "COMP_CWORD": str(len(joined) - 1)}
    present = max(joined[-1].rfind(mark) for mark in BREAKS) + 1
    answer = io.StringIO()
    try:
        with redirect_stdout(answer):
            program()
    finally:
        sys.stdout.write("".join(f"{line[present:]}\n" for line in answer.getvalue().splitlines()))


def join_words(words: list[str]) -> list[str]:
    """`[..., "a", "=", "b"]` -> `[..., "a=b"]`; the program's name stays alone."""
    joined: list[str] = []
    for word in words:
        if joined[1:] and (word in BREAKS or joined[-1].endswith(BREAKS)):
            joined[-1] += word
        else:
            joined.append(word)
    return joined
