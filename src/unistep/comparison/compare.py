"""`compare`: one teacher, one judge, one budget, several entries; each an ordinary run, then one table and one page."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from unistep.comparison.budget import plan_entry, with_num_steps
from unistep.comparison.entries import Entry, done, entry_recipes, require_entries, run_name, runs_of, seeded
from unistep.comparison.rows import Finished, compared, solver_row
from unistep.comparison.shared import Shared
from unistep.comparison.solver_rows import SolverRow, judge_solver, result_file, solver_rows, unavailable
from unistep.errors import UserError
from unistep.evaluation import Candidate
from unistep.evaluation.comparison import ComparedRow
from unistep.recipes.comparison import CompareRecipe
from unistep.recipes.entries import Skipped, base_guidance
from unistep.recipes.load import RecipeLike, recipe_of
from unistep.recipes.merge import merge
from unistep.recipes.overrides import Overrides, read_overrides
from unistep.recipes.schema import DistillRecipe
from unistep.reports import print_comparison, write_comparison, write_samples
from unistep.run.console import Talk
from unistep.run.distill import distill
from unistep.run.evaluate import NO_JUDGE, TEACHER, require_its_teacher
from unistep.run.evaluation_fingerprint import Judging
from unistep.run.evaluation_protocol import apply_protocol
from unistep.run.extractors import AnyJudge, PointReference, find_judge, point_reference
from unistep.run.folder import folder_of, has_learnt, only_writer, open_run, record_start
from unistep.run.sample_sources import Model, SampleSource, generator_source, solved_teacher, teacher_draws
from unistep.teachers.checkpoint import load_generator
from unistep.teachers.teacher import Teacher
from unistep.training.distributed import resolve_device

SOLVERS = "solvers"


def compare(
    recipe: RecipeLike,
    *,
    out: str | Path | None = None,
    overrides: Overrides = (),
    only: Iterable[str] = (),
    teacher: Teacher | None = None,
    device: str = "auto",
    cache: bool = True,
    quiet: bool = False,
) -> Path:
    """Runs what a comparison has not run yet, then writes its table, figure, sample grid and page.

    Args:
        recipe: a compare recipe: built-in name, path, mapping or loaded.
        out: the comparison's folder; None = runs/<recipe name>. Each entry is a run of `distill` in
            OUT/<entry>/seed-<n>.
        overrides: `a.b=c` items or a mapping, see `load_recipe`.
        only: entries to run now, `solvers` among them; none = everything. The table shows whatever has been run.
        teacher: your own teacher, instead of the base recipe's.
        device: auto, cpu or cuda.
        cache: let the entries use and keep features of the teacher in the user's cache, as `distill` does.
        quiet: print nothing.

    Returns:
        The comparison's folder, with compare.json and compare.html.

    Raises:
        UserError: for mistakes in the recipe or an entry's, a budget too small, nothing to judge by, several ranks; for
            runs that failed, once the others are through and the page is written.
        KeyboardInterrupt: after Ctrl-C, with everything saved.
    """
    flags = {} if device == "auto" else {"set": {"training": {"device": device}}}
    resolved, say = recipe_of(CompareRecipe, recipe, merge(read_overrides(overrides), flags)), Talk(quiet)
    if (ranks := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        raise UserError(f"compare: found {ranks} ranks, expected one process: its entries run one after the other")
    named = tuple(only)
    chosen, solvers = chosen_names(resolved, named), tuple(solver_rows(resolved.solvers))
    found = entry_recipes(resolved)
    missing = [entry for entry in found.values() if isinstance(entry, Skipped)]
    recipes = {name: entry for name, entry in found.items() if isinstance(entry, DistillRecipe)}
    if not recipes:
        raise UserError(f"{resolved.name}: found no entry that can be run: {missing[0].name}: {missing[0].reason}")
    if absent := next((entry for entry in missing if entry.name in named), None):
        raise UserError(f"--only {absent.name}: found an entry that cannot be run: {absent.reason}")
    where = resolve_device(next(iter(recipes.values())).training.device)
    place, asked = folder_of(resolved, out), {name: recipes[name] for name in chosen if name in recipes}
    require_entries(resolved, asked, place / "shared", where, teacher)
    with only_writer(place, say):
        folder = open_run(resolved, Path(out) if out else None)
        record_start(folder, where)
        work = Work(resolved, folder, where, say, quiet, Shared(folder / "shared", where, say, quiet, teacher), cache)
        entries, unpaid = work.planned(recipes, chosen)
        missing += unpaid
        failures = work.run_all([entries[name] for name in chosen if name in entries])
        work.conclude(entries, [*missing, *failures], solvers, SOLVERS in chosen)
    if failures:
        others = f"; and {len(failures) - 1} more, named in the table's note" if len(failures) > 1 else ""
        raise UserError(f"{failures[0].name}: {failures[0].reason}{others}")
    return folder


def chosen_names(recipe: CompareRecipe, only: tuple[str, ...]) -> list[str]:
    """The entries to run, in the recipe's order, and `solvers`.

    Raises:
        UserError: for a name that the recipe does not have.
    """
    known = [*recipe.entries, SOLVERS]
    for name in only:
        if name not in known:
            raise UserError(f"--only {name}: no such entry; expected one of {', '.join(known)}")
    return [name for name in known if not only or name in only]


@dataclass(frozen=True)
class Work:
    """A comparison at work."""

    recipe: CompareRecipe
    folder: Path
    device: torch.device
    say: Talk
    quiet: bool
    shared: Shared
    cache: bool = True

    # --------------------------------------------------------------------------------------------------------- runs

    def planned(self, recipes: dict[str, DistillRecipe], chosen: list[str]) -> tuple[dict[str, Entry], list[Skipped]]:
        """The entries at the lengths that the budget allows, and those not chosen that it does not pay for.

        Raises:
            UserError: for a chosen entry that the budget does not pay for, or a teacher that nothing can judge.
        """
        entries: dict[str, Entry] = {}
        unpaid: list[Skipped] = []
        for name, written in recipes.items():
            start = self.shared.start(written)
            judge, _ = self.judging(written, start.teacher)
            try:
                solved, kept = self.shared.with_solver(written)
                recipe = self.shared.with_pairs(solved)
                plan = plan_entry(recipe, self.recipe.budget, start, self.device, self.folder / "shared", name, kept)
            except UserError as error:
                if name in chosen:
                    raise
                unpaid.append(Skipped(name, str(error)))
                continue
            self.say(f"{name}: {plan.steps:,} steps, {plan.evaluations:,} evaluations")
            judging = Judging.of(recipe, start.teacher, judge)
            entries[name] = Entry(name, with_num_steps(recipe, plan.steps), plan, judging)
        if not entries:
            raise UserError(unpaid[0].reason)
        return entries, unpaid

    def place(self, name: str, seed: int) -> Path:
        """The folder of a run."""
        return self.folder / name / f"seed-{seed}"

    def run_all(self, entries: list[Entry]) -> list[Skipped]:
        """Runs what is not there, and returns the runs that failed: one that diverges does not stop the others."""
        failures = []
        for entry, seed in ((entry, seed) for entry in entries for seed in self.recipe.seeds):
            try:
                self.run(entry, seed)
            except UserError as error:
                failures.append(Skipped(run_name(entry, seed), str(error)))
                self.say(f"{failures[-1].name}: {error}")
        return failures

    def run(self, entry: Entry, seed: int) -> None:
        """One run of an entry, unless it is there.

        Raises:
            UserError: for a folder with a run of other settings or of another teacher, or whatever `distill` raises.
        """
        place, recipe = self.place(entry.name, seed), seeded(entry.recipe, seed)
        if done(place, recipe, entry.judging) is not None:
            return
        self.say(f"{run_name(entry, seed)}: {place}")
        if has_learnt(place):
            require_its_teacher(place, self.shared.start(recipe).teacher)
        open_run(recipe, place)
        (place / "evaluation.json").unlink(missing_ok=True)  # of other settings: a row must not outlive them
        self.shared.make_pairs(recipe)
        self.shared.into(recipe, place)
        distill(recipe, out=place, teacher=self.shared.own, cache=self.cache, quiet=self.quiet)

    # ---------------------------------------------------------------------------------------------------- the result

    def conclude(
        self, entries: dict[str, Entry], missing: list[Skipped], solvers: tuple[SolverRow, ...], judge_solvers: bool
    ) -> None:
        """Judges the solvers if asked, and writes what there is to show."""
        base, failed = self.base(entries), {failure.name for failure in missing}
        shown, judged, unsuited = self.solvers(solvers, base, judge_solvers)
        missing = [*missing, *unsuited]
        finished = list[Finished]()
        for entry in entries.values():
            places = {seed: self.place(entry.name, seed) for seed in self.recipe.seeds}
            runs, absent = runs_of(entry, places, failed)
            finished += [runs] if runs else []
            missing += absent
        if not finished:
            self.say("no entry has been run yet: table, figure and page come with the first")
            for stale in ("compare.json", "compare.html", "compare.svg"):  # of other settings
                (self.folder / stale).unlink(missing_ok=True)
            return
        self.draw(finished, shown, base)
        comparison = compared(self.recipe, self.folder, finished, judged, missing)
        comparison.save(self.folder / "compare.json")
        page = write_comparison(self.folder, comparison)
        if not self.quiet:
            print_comparison(comparison)
        self.say(f"page: {page}")

    def base(self, entries: dict[str, Entry]) -> DistillRecipe:
        """An entry's recipe at the base's guidance: what solvers are judged and drawn by."""
        recipe = next(iter(entries.values())).recipe
        teacher = recipe.teacher.model_copy(update={"guidance": base_guidance(self.recipe)})
        return recipe.model_copy(update={"teacher": teacher})

    def solvers(
        self, rows: tuple[SolverRow, ...], recipe: DistillRecipe, judge_all: bool
    ) -> tuple[list[SolverRow], list[ComparedRow], list[Skipped]]:
        """The teacher under solvers, judged as the base is.

        Args:
            rows: every one that the recipe asks for.
            recipe: of the base.
            judge_all: or only those that have been judged before.

        Returns:
            Solvers with a row, their rows, and the solvers that cannot be had.
        """
        teacher, place = self.shared.start(recipe).teacher, self.folder / SOLVERS
        judge, _ = self.judging(recipe, teacher)
        alike = Judging.of(recipe, teacher, judge)
        absent = {row.name: reason for row in rows if (reason := unavailable(row, teacher.process)) is not None}
        suited = [row for row in rows if row.name not in absent]
        shown = [row for row in suited if judge_all or result_file(row, recipe, alike, place).is_file()]
        judged = [judge_solver(row, recipe, teacher, judge, place, self.device, self.say) for row in shown]
        return shown, [solver_row(*both) for both in zip(shown, judged, strict=True)], [*absent.values()]

    def judging(self, recipe: DistillRecipe, teacher: Teacher) -> tuple[AnyJudge | None, PointReference | None]:
        """What judges the entries: a judge of images, or exact points.

        Raises:
            UserError: if there is neither, because a comparison that measures nothing is none.
        """
        place = self.shared.teacher_folder(recipe)
        judge = find_judge(recipe, apply_protocol(recipe, teacher, self.device), place, self.device, self.say)
        reference = None if judge is not None else point_reference(teacher, recipe.evaluation.samples)
        if judge is None and reference is None:
            raise UserError(NO_JUDGE)
        return judge, reference

    def draw(self, entries: list[Finished], solvers: list[SolverRow], base: DistillRecipe) -> None:
        """Samples of every row from the same seeds: teacher, solvers, each entry's first seed."""
        teacher = self.shared.start(base).teacher
        _, points = self.judging(base, teacher)
        scale = base.teacher.guidance
        rows = [candidate(TEACHER, *solved_teacher(teacher, base.evaluation.solver, scale, self.device))]
        rows += [candidate(row.name, *solved_teacher(teacher, row.solver, scale, self.device)) for row in solvers]
        for entry in entries:
            generator, _, _ = load_generator(next(iter(entry.runs.values())), teacher)
            model: Model = generator_source(generator.to(self.device))
            rows.append(candidate(entry.name, teacher_draws(teacher, model, self.device), generator.steps.count))
        real = None if points is None else points.real
        first_seed = base.evaluation.first_seed
        write_samples(self.folder, rows, first_seed=first_seed, real=real, is_points=points is not None)


def candidate(name: str, draws: SampleSource, nfe: int) -> Candidate:
    """A row of the grid."""
    return Candidate(name=name, sample=draws, nfe=nfe)
