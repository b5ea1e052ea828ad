"""What the runs of a comparison share, made once: teacher, certificate, pairs, features of the teacher's samples."""

import hashlib
import json
import os
import time
from pathlib import Path

import torch

from unistep.errors import UserError
from unistep.io.atomic import atomic_write
from unistep.io.text_files import read_json
from unistep.recipes.schema import DistillRecipe
from unistep.recipes.sections import AutoSolverConfig
from unistep.run.certify import FILE as CERTIFICATE
from unistep.run.console import Talk
from unistep.run.pairs import pairs_of_run
from unistep.run.solver_choice import CachedChoice, find_choice, question
from unistep.run.teacher import StudentInit, starting_point
from unistep.teachers.teacher import Teacher


class Shared:
    """The folder `shared` of a comparison.

    Args:
        folder: it.
        device: where the runs are trained.
        say: told what takes time.
        quiet: no progress bars.
        own: the caller's own teacher, or None.
    """

    def __init__(self, folder: Path, device: torch.device, say: Talk, quiet: bool, own: Teacher | None = None):
        self.folder, self.device, self.say, self.quiet, self.own = folder, device, say, quiet, own
        self.starts: dict[Path, StudentInit] = {}

    def teacher_folder(self, recipe: DistillRecipe) -> Path:
        """Stands in for a run's folder as far as its teacher goes; one for every guidance."""
        teacher = recipe.teacher.model_dump(exclude={"guidance", "certify"})
        return self.folder / named("teacher", [teacher, recipe.fit and recipe.fit.model_dump(mode="json")])

    def start(self, recipe: DistillRecipe) -> StudentInit:
        """Teacher and network that an entry starts from, taught or fitted the first time."""
        place = self.teacher_folder(recipe)
        if place not in self.starts:
            place.mkdir(parents=True, exist_ok=True)
            self.starts[place] = starting_point(recipe, place, self.device, self.say, self.quiet, self.own)
        return self.starts[place]

    def into(self, recipe: DistillRecipe, run: Path) -> None:
        """Puts teacher, certificate and places for features of the teacher's samples and of real images into a run.

        As links and a copy.
        """
        place = self.teacher_folder(recipe)
        judged = [recipe.teacher.model_dump(), recipe.evaluation.model_dump(mode="json")]
        link(run / "features", self.folder / named("features", judged))
        link(run / "reference", place / "reference")
        if (place / "teacher").is_dir():
            link(run / "teacher", place / "teacher")
        if (place / CERTIFICATE).is_file() and not (run / CERTIFICATE).exists():
            atomic_write(run / CERTIFICATE, (place / CERTIFICATE).read_bytes())

    # -------------------------------------------------------------------------------------------------------- pairs

    def with_solver(self, recipe: DistillRecipe) -> tuple[DistillRecipe, CachedChoice | None]:
        """The recipe with solver `auto` of its pairs chosen, once for all that ask the same, and the choice.

        The entry's pairs are then those of the chosen solver, whoever asks for it.
        """
        if recipe.pairs is None or not recipe.method.needs_pairs:
            return recipe, None
        config, teacher = recipe.pairs.solver, self.start(recipe).teacher
        if not isinstance(config, AutoSolverConfig):
            return recipe, None
        file = self.folder / f"{named('solver', question(config, recipe, teacher))}.json"
        kept = find_choice(config, recipe, teacher, file, self.device, self.say)
        about = "; ".join(filter(None, (recipe.about, str(kept))))
        pairs = recipe.pairs.model_copy(update={"solver": kept.solver})
        return recipe.model_copy(update={"pairs": pairs, "about": about}), kept

    def pairs_folder(self, recipe: DistillRecipe) -> Path | None:
        """Where an entry's pairs are: one place for the same facts, whatever the count; None for the recipe's own."""
        if recipe.pairs is None or recipe.pairs.path is not None:
            return None
        facts = [recipe.teacher.model_dump(exclude={"certify"}), recipe.pairs.model_dump(exclude={"count", "path"})]
        return self.folder / named("pairs", facts)

    def with_pairs(self, recipe: DistillRecipe) -> DistillRecipe:
        """The recipe, its pairs in the shared place."""
        place = self.pairs_folder(recipe)
        if recipe.pairs is None or place is None:
            return recipe
        return recipe.model_copy(update={"pairs": recipe.pairs.model_copy(update={"path": str(place)})})

    def make_pairs(self, recipe: DistillRecipe) -> None:
        """The pairs of an entry whose recipe went through `with_pairs`; the seconds of making them are noted beside.

        Those with a path of the recipe's own are left to the run.
        """
        place = None if recipe.pairs is None else Path(recipe.pairs.path or "")
        if place is None or place.parent != self.folder or not recipe.method.needs_pairs:
            return
        teacher = self.start(recipe).teacher
        before, started = stored_rows(place, recipe), time.perf_counter()
        try:
            pairs_of_run(recipe, teacher, place, self.device, self.say, self.quiet)
        finally:
            made = stored_rows(place, recipe) - before
            if made > 0:
                note_seconds(place, made, time.perf_counter() - started)


def named(what: str, facts: object) -> str:
    """A folder's name that tells facts apart."""
    return f"{what}-{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]}"


def link(at: Path, target: Path) -> None:
    """A relative link to a folder, unless there is something already."""
    target.mkdir(parents=True, exist_ok=True)
    if not at.exists():
        at.symlink_to(os.path.relpath(target, at.parent), target_is_directory=True)


def stored_rows(place: Path, recipe: DistillRecipe) -> int:
    """How many pairs a place holds."""
    tile = recipe.pairs.tile if recipe.pairs is not None else 0
    return tile * len(list(place.glob("*.safetensors")))


def seconds_file(place: Path) -> Path:
    """Beside the pairs, whose folder is theirs alone."""
    return place.with_name(f"{place.name}.json")


def note_seconds(place: Path, rows: int, seconds: float) -> None:
    """Adds to what making pairs has taken."""
    known = read_seconds(place)
    total = {"rows": known["rows"] + rows, "seconds": known["seconds"] + seconds}
    atomic_write(seconds_file(place), (json.dumps(total) + "\n").encode())


def read_seconds(place: Path) -> dict[str, float]:
    """Rows made and seconds taken."""
    file = seconds_file(place)
    if not file.is_file():
        return {"rows": 0, "seconds": 0.0}
    advice = "delete this one file; the time that pairs took is then counted anew"
    found = read_json(file, advice)
    if not all(isinstance(found.get(key), int | float) for key in ("rows", "seconds")):
        raise UserError(f"{file}: found {sorted(found)}, expected numbers under rows and seconds; {advice}")
    return found


def pair_minutes(place: Path | None, rows: int) -> float | None:
    """Minutes that so many pairs took, at the rate at which those of the place were made; None where nobody knows."""
    if rows == 0:
        return 0.0
    known = read_seconds(place) if place is not None else {"rows": 0, "seconds": 0.0}
    return known["seconds"] / known["rows"] * rows / 60 if known["rows"] else None
