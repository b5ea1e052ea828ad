"""Plain values to a checked model, with every mistake told and not only the first."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from unistep.errors import Mistakes
from unistep.recipes.merge import merge
from unistep.recipes.messages import MOST_DESCRIBED, Problem, problems
from unistep.recipes.overrides import nest

ROUNDS = 8  # of looking again without the settings that were refused
STAND_INS = {"training.steps": 10**9}  # long enough for any milestone; other numbers that must be there are 1

AnyModel = TypeVar("AnyModel", bound=BaseModel)


def validate(model: type[AnyModel], values: Mapping[str, Any], source: str) -> AnyModel:
    """The model of plain values; nothing is converted from one type to another, except whole numbers to numbers.

    Checks across sections only run once each section is right by itself. So a recipe that is refused is looked at again
    without the settings that were refused, for what else is wrong with it.

    Args:
        model: a recipe's.
        values: only text, numbers, true, false, null, lists and mappings.
        source: of the recipe, for messages.

    Raises:
        UserError: naming each mistake on a line of its own.
    """
    try:
        # JSON mode is strict about types and still reads lists as tuples, which frozen models hold.
        return model.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        found = problems(error, model)
        mistakes = Mistakes()
        further = further_problems(model, values, found) if len(found) <= MOST_DESCRIBED else []
        mistakes.add(*(f"{source}: {problem.message}" for problem in [*found, *further]))
        mistakes.require_none()
        raise  # a validation that fails has at least one problem


def further_problems(model: type[BaseModel], values: Mapping[str, Any], found: list[Problem]) -> list[Problem]:
    """What is wrong beside the problems found, as far as it can be seen without the settings that they name."""
    refused = {place for problem in found for place in problem.places}
    known, further, absent = {problem.message for problem in found}, list[Problem](), set[str]()
    for _ in range(ROUNDS):
        kept = without(values, refused)
        for place in absent:
            kept = merge(kept, nest(place, STAND_INS.get(place, 1)))
        try:
            model.model_validate_json(json.dumps(kept), strict=True)
            break
        except ValidationError as error:
            seen = [problem for problem in problems(error, model) if problem.message not in known]
        known |= {problem.message for problem in seen}
        fresh = [problem for problem in seen if not is_about(problem, refused)]
        further += fresh
        again = {place for problem in seen if problem.is_missing for place in problem.places} & refused - absent
        places = {place for problem in fresh for place in problem.places} - refused
        if not places and not again:
            break
        absent |= again
        refused |= places
    return further


def is_about(problem: Problem, refused: Iterable[str]) -> bool:
    """Whether a problem speaks of a refused setting or what holds it, whose absence may be all that it complains of."""
    around = [f"{place}." for place in problem.places]
    return any(place in problem.message or any(map(place.startswith, around)) for place in refused)


def without(values: Mapping[str, Any], places: Iterable[str]) -> dict[str, Any]:
    """The values without the settings at dotted paths."""
    inner: dict[str, list[str]] = {}
    for place in places:
        key, _, rest = place.partition(".")
        inner.setdefault(key, []).append(rest)
    kept = {key: value for key, value in values.items() if "" not in inner.get(key, ())}
    return {k: without(v, inner[k]) if k in inner and isinstance(v, Mapping) else v for k, v in kept.items()}
