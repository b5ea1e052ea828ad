"""Finding a recipe: a built-in name or the path of a YAML file."""

from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

from unistep.errors import UserError


def builtin_recipes() -> dict[str, str]:
    """Name -> text of every recipe in the package, in alphabetical order."""
    folders = [folder for folder in files("unistep.recipes").iterdir() if folder.is_dir()]
    entries = [entry for folder in folders for entry in folder.iterdir() if entry.name.endswith(".yaml")]
    return dict(sorted((entry.name.removesuffix(".yaml"), entry.read_text()) for entry in entries))


def read_recipe(name: str | Path) -> tuple[str, str]:
    """A recipe's text and where it came from.

    Args:
        name: a built-in recipe's name, or the path of a YAML file.

    Raises:
        UserError: if there is neither.
    """
    known = builtin_recipes()
    if str(name) in known:
        return known[str(name)], str(name)
    path = Path(name)
    if path.is_dir():
        raise UserError(f"{path}: found a folder, expected a recipe file; a run's own recipe is {path / 'recipe.yaml'}")
    if path.is_file():
        try:
            return path.read_text(), str(path)
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: found a file that is no text, expected a YAML recipe") from error
    close = get_close_matches(str(name), known, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UserError(f"recipe {name}: not found; {hint}expected a file or one of {', '.join(known)}")
