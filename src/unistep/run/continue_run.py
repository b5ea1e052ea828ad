"""Continues a run beyond its recipe: more steps, or other settings that leave networks and their state as they are."""

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from unistep.errors import Mistakes, UserError
from unistep.io.atomic import atomic_write
from unistep.recipes.builtin import builtin_recipes
from unistep.recipes.extend import combine, recipe_layers
from unistep.recipes.load import RecipeLike, dump_recipe, recipe_of
from unistep.recipes.merge import merge
from unistep.recipes.overrides import Overrides
from unistep.recipes.schema import DistillRecipe, TeachRecipe
from unistep.recipes.stages import STAGED, stages_of
from unistep.run.console import Talk
from unistep.run.folder import has_learnt, read_record, record, settings
from unistep.training.checkpoint import Checkpoints
from unistep.training.config import OptimConfig, TrainingConfig
from unistep.training.optim import config_for, learning_rate
from unistep.training.resume import flatten, is_within

EARLIER = "recipe-until-{:07d}.yaml"
R = TypeVar("R", DistillRecipe, TeachRecipe)


def find_run(recipe: RecipeLike, out: str | Path | None, steps: int | None) -> Path | None:
    """Returns the run that is named in the place of a recipe, None for a recipe.

    Raises:
        UserError: for `steps` without a run, or a second folder.
    """
    folder = Path(recipe) if isinstance(recipe, str | Path) and str(recipe) not in builtin_recipes() else None
    if folder is None or not (folder / "recipe.yaml").is_file():
        if steps is not None:
            raise UserError(
                f"steps: found {steps} without a run, expected the folder of one to continue; the length of a new run "
                "is training.steps"
            )
        return None
    if out is not None and Path(out).resolve() != folder.resolve():
        raise UserError(f"out: found {out}, expected nothing: the run {folder} is continued in its own folder")
    return folder


def read_continued(model: type[R], run: Path, steps: int | None, overrides: Overrides) -> R:
    """Reads a run's recipe as it will be; nothing is written yet.

    Args:
        model: kind of the recipe.
        run: the run's folder.
        steps: how many more than the run's recipe says. Those of an earlier call that has not come to its end are not
            added again, so that the same command goes on.
        overrides: other settings.

    Raises:
        UserError: for settings that must not change, or fewer steps than are done.
    """
    before = recipe_of(model, run / "recipe.yaml")
    values = combine(recipe_layers(before.model_dump(mode="json"), overrides))
    if steps is not None:
        if steps < 1:
            raise UserError(f"steps: found {steps}, expected 1 or more, the number of steps to add")
        added = 0 if pending_steps(run, before) == steps else steps
        values["training"] = {**values["training"], "steps": before.training.steps + added}
    done = completed_steps(run, before)
    if isinstance(before, DistillRecipe):
        values = with_method_steps(before, with_stages(before, values, done))
    after = recipe_of(model, values)
    if has_learnt(run):
        require_changeable(before, after, run, done)
    return after


def continue_run(after: R, run: Path, say: Talk) -> None:
    """Puts the changed recipe in the place of the run's, keeps the earlier one beside it, and says what changes.

    Nothing happens where the run is bound to the same settings already.
    """
    before = recipe_of(type(after), run / "recipe.yaml")
    if settings(before) == settings(after) or not has_learnt(run):
        return
    done = completed_steps(run, before)
    kept = run / EARLIER.format(done)
    if not kept.is_file():
        atomic_write(kept, dump_recipe(before).encode())
    known = read_record(run / "run.json")
    entry = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "from_step": done,
        "until_step": after.training.steps, "added": after.training.steps - before.training.steps,
        "earlier_recipe": kept.name, "earlier_weights": known.get("weights"),
    }  # fmt: skip
    record(run, continued=[*known.get("continued", []), entry])
    atomic_write(run / "recipe.yaml", dump_recipe(after).encode())
    say(f"continues {run} from step {done:,} to {after.training.steps:,}; {learning_rates(before, after, done)}")


def earlier_recipes(model: type[R], run: Path) -> list[R]:
    """Reads the recipes that a run had before it was continued; its older checkpoints are bound to them."""
    return [recipe_of(model, file) for file in sorted(run.glob("recipe-until-*.yaml"))]


def mark_finished(run: Path, recipe: DistillRecipe | TeachRecipe) -> None:
    """Records that a run has come to its end, so that the next `steps` are new ones.

    Raises:
        UserError: if its folder was removed meanwhile: what was written since is no run.
    """
    if not (run / "recipe.yaml").is_file():
        raise UserError(f"{run}: the run's folder was removed while it was at work; start it again")
    record(run, finished={"step": recipe.training.steps})


def pending_steps(run: Path, recipe: DistillRecipe | TeachRecipe) -> int:
    """Returns the steps that the last continuation added, 0 if it has come to its end or there was none."""
    known = read_record(run / "run.json")
    last = (known.get("continued") or [{}])[-1]
    finished = (known.get("finished") or {}).get("step")
    total = recipe.training.steps
    return last["added"] if last.get("until_step") == total and finished != total else 0


def completed_steps(run: Path, recipe: DistillRecipe | TeachRecipe) -> int:
    """Returns the step of a run's newest checkpoint, 0 without one.

    Raises:
        UserError: if a run has come to its end and has no checkpoint to go on from.
    """
    steps = Checkpoints(run / "checkpoints").steps()
    if not steps and (run / ("generator" if isinstance(recipe, DistillRecipe) else "teacher")).is_dir():
        raise UserError(f"{run / 'checkpoints'}: found no checkpoint, expected the last one: nothing can be continued")
    return max(steps, default=0)


# ------------------------------------------------------------------------------------------------- what may change


def require_changeable(before: R, after: R, run: Path, done: int) -> None:
    """Refuses to continue with other networks, data or pairs, or with fewer steps than are done.

    Raises:
        UserError: naming the first setting.
    """
    old, new = settings(before), settings(after)
    allowed = changeable(before)
    changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    mistakes = Mistakes()
    for key in (key for key in changed if not is_within(key, allowed)):
        found, expected = (json.dumps(s[key]) if key in s else "nothing" for s in (new, old))
        mistakes.add(
            f"{key}: found {found}, expected {expected} as in {run / 'recipe.yaml'}; a run is continued with the "
            "networks, data and seeds that it has"
        )
    mistakes.require_none()
    steps = after.training.steps
    if changed and steps <= done:
        found = f"training.steps: found {steps}" if steps != before.training.steps else f"{changed[0]}: found a change"
        raise UserError(f"{found}, expected more steps than the {done:,} that are done; add some with --steps")


def changeable(recipe: DistillRecipe | TeachRecipe) -> list[str]:
    """Returns the settings, or sections of them, that may change when a run is continued."""
    if isinstance(recipe, TeachRecipe):
        return sorted(["training.steps", *(name for name in STAGED if name.startswith("training."))])
    return sorted(["training.steps", "method_steps", "stages", *STAGED, *(f"method.{n}" for n in recipe.method.staged)])


def with_method_steps(before: DistillRecipe, values: Mapping[str, Any]) -> dict[str, Any]:
    """Fixes the length that the method's own schedule was laid out for, so that rounds that are done stay done."""
    longer = values["training"]["steps"] != before.training.steps
    if not longer or not before.method.follows_length or values.get("method_steps") is not None:
        return dict(values)
    return {**values, "method_steps": before.training.steps}


def with_stages(before: DistillRecipe, values: Mapping[str, Any], done: int) -> dict[str, Any]:
    """Lets the last stage of a run with stages end where the training now does.

    Settings that change become a stage of their own from the present step on, because a stage's settings hold over the
    recipe's.
    """
    known = before.model_dump(mode="json")
    if not before.stages or values["stages"] != known["stages"]:
        return dict(values)
    allowed = [name for name in changeable(before) if "." in name and name != "training.steps"]
    old, new = flatten(known), flatten(values)
    changes = {key: value for key, value in new.items() if old.get(key) != value and is_within(key, allowed)}
    past = [stage for stage in known["stages"] if stage["until_step"] <= done]
    left = [stage for stage in known["stages"] if stage["until_step"] > done] or known["stages"][-1:]
    if changes:
        if done not in (0, *(stage["until_step"] for stage in past)):
            past.append({"until_step": done, "set": left[0]["set"]})
        overlay = combine(recipe_layers({}, changes))
        left = [{**stage, "set": merge(stage["set"], overlay)} for stage in left]
        values = with_sections(values, known, allowed)
    elif left[-1] in past:
        past.remove(left[-1])
    left[-1] = {**left[-1], "until_step": values["training"]["steps"]}
    return {**values, "stages": [*past, *left]}


def with_sections(values: Mapping[str, Any], known: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Returns the values with some settings, `section.key`, as they were known before."""
    restored = dict(values)
    for section, key in (name.split(".") for name in names):
        if known[section] is not None and key in known[section]:
            restored[section] = {**restored[section], key: known[section][key]}
    return restored


# ---------------------------------------------------------------------------------------------------- learning rates


def learning_rates(before: R, after: R, done: int) -> str:
    """Says for each network what its learning rate does from here on."""
    old, new = last_training(before), last_training(after)
    parts = [f"{name} {describe_rate(config_for(old.optim, name), config, (old.steps, new.steps), done)}"
             for name, config in sorted(new.optim.items())]  # fmt: skip
    return f"learning rates (Adam's moments are kept, no new warm-up): {'; '.join(parts)}"


def last_training(recipe: DistillRecipe | TeachRecipe) -> TrainingConfig:
    """Returns the training settings in force at the end of a recipe."""
    return stages_of(recipe)[-1].recipe.training if isinstance(recipe, DistillRecipe) else recipe.training


def describe_rate(old: OptimConfig, new: OptimConfig, steps: tuple[int, int], done: int) -> str:
    """Says what one learning rate was and what it does: it is a function of the step and the new length alone."""
    if new.restart and new.schedule != "constant":
        return f"{new.schedule} since the last milestone, now ending at step {steps[1]:,}"
    was, now = learning_rate(old, max(done - 1, 0), steps[0]), learning_rate(new, done, steps[1])
    if new.schedule == "constant":
        return f"stays at {now:g}" if was == now else f"{now:g}, was {was:g}"
    end = new.lr * new.final_fraction
    return f"{new.schedule} over all {steps[1]:,} steps, so {now:.3g} now (was {was:.3g}) down to {end:.3g}"
