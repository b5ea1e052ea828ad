"""The stages of a training: going on with other settings, of those alone that leave networks and state as they are."""

from dataclasses import dataclass

from unistep.errors import Mistakes, UserError
from unistep.recipes.merge import drop_null, merge
from unistep.recipes.schema import DistillRecipe, StageConfig
from unistep.recipes.validate import validate
from unistep.training.resume import flatten, is_within

STAGED = ("pairs.count", "training.accumulate", "training.batch", "training.optim", "training.pair_batch")


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        until: completed steps at its end.
        recipe: its settings, those of the whole recipe with the stage's over them; `training.steps` is the whole's, so
            that learning rates span it.
    """

    until: int
    recipe: DistillRecipe


def stages_of(recipe: DistillRecipe) -> list[Stage]:
    """The stages in order; a recipe that names none is one.

    Raises:
        UserError: for a setting that may not change, or that does not fit the others.
    """
    if not recipe.stages:
        return [Stage(recipe.training.steps, recipe)]
    found, mistakes = list[Stage](), Mistakes()
    for i, stage in enumerate(recipe.stages):
        with mistakes.collect():
            found.append(Stage(stage.until_step, settings_of(recipe, stage, i)))
    mistakes.require_none()
    for i, stage in enumerate(found):
        if stage.recipe.method.needs_data != found[0].recipe.method.needs_data:
            raise UserError(
                f"{recipe.name}: stages.{i}: found a method that begins or ends to learn from real images, expected "
                "the same networks in every stage; keep lambda_gan positive, or 0"
            )
    return found


def settings_of(recipe: DistillRecipe, stage: StageConfig, number: int) -> DistillRecipe:
    """The whole recipe's settings under those of a stage."""
    place = f"{recipe.name}: stages.{number}.set"
    allowed = sorted((*STAGED, *(f"method.{name}" for name in recipe.method.staged)))
    mistakes = Mistakes()
    for key, value in flatten(stage.set).items():
        if not is_within(key, allowed):
            mistakes.add(
                f"{place}.{key}: found {value!r}, expected one of {', '.join(allowed)}: nothing else leaves networks "
                "and their state as they are"
            )
    mistakes.require_none()
    values = drop_null(merge(recipe.model_dump(mode="json", exclude={"stages"}), stage.set))
    return validate(DistillRecipe, values, place)
