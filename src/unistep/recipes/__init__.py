"""Recipes: YAML files checked against typed models, with overrides and errors that name the place."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from unistep.recipes.builtin import builtin_recipes as builtin_recipes
from unistep.recipes.builtin import read_recipe as read_recipe

if TYPE_CHECKING:
    from unistep.recipes.comparison import CompareRecipe as CompareRecipe
    from unistep.recipes.load import Recipe as Recipe
    from unistep.recipes.load import load_recipe as load_recipe
    from unistep.recipes.schema import DistillRecipe as DistillRecipe
    from unistep.recipes.schema import TeachRecipe as TeachRecipe

_HOMES = {
    "Recipe": "load",
    "load_recipe": "load",
    "CompareRecipe": "comparison",
    "DistillRecipe": "schema",
    "TeachRecipe": "schema",
}


def __getattr__(name: str) -> Any:
    """The models need torch's part of the package; listing and printing recipes does not."""
    if name not in _HOMES:
        raise AttributeError(f"module 'unistep.recipes' has no attribute {name!r}")
    return getattr(import_module(f"unistep.recipes.{_HOMES[name]}"), name)
