"""Whether plans come true: predicted and actual peak memory and step time, back to back; python benchmarks/plan.py."""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

SOLVER = "{name: heun, num_steps: 2}"
SHORT = {
    "training.steps": 12, "training.log_every": 1, "method.fake_score_from_step": 4, "method.dm_from_step": 8,
    "pairs.count": 200, "pairs.solver": SOLVER, "evaluation.solver": SOLVER, "evaluation.samples": 1000,
    "evaluation.samples_during_training": 130, "evaluation.timed": False,
}  # fmt: skip
SHORT_TEACHER = (
    "training.steps=8", "evaluation.judge_steps=10", "evaluation.samples_during_training=130",
    f"evaluation.solver={SOLVER}",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A recipe, shortened.

    Attributes:
        title: for the table.
        recipe: built-in name.
        changes: `--set` values besides `SHORT`.
        teacher: those of the teach recipe that the teacher comes from; None for a teacher that is loaded.
    """

    title: str
    recipe: str
    changes: dict[str, object] = field(default_factory=dict)
    teacher: tuple[str, ...] | None = None


WIDE = ("network.model_channels=160", "network.num_blocks=2")
CASES = {
    "digits": Case("digits, 8x8", "digits", teacher=()),
    "fashion-mnist": Case("fashion-mnist, 28x28", "fashion-mnist"),
    "wide": Case("digits, wider and deeper", "digits", teacher=WIDE),
    "parts": Case("fashion-mnist, batch 64 in 4 parts", "fashion-mnist", {"training.accumulate": 4}),
    "large": Case("fashion-mnist, batch 160", "fashion-mnist", {"training.batch": 160}),
}


# ---------------------------------------------------------------------------------------- in a process of its own each


def predict(recipe: str, overrides: list[str], folder: str) -> dict[str, object]:
    """The plan's peak and the seconds of each kind of step of the distillation."""
    import unistep

    begun = time.process_time()
    plan = unistep.plan(recipe, overrides=overrides, out=folder, quiet=True)
    steps = next(stage for stage in plan.stages if stage.name == "training").steps
    return {
        "peak": plan.needs["memory"],
        "stage": plan.highest.name,
        "seconds": [kind.seconds for kind in steps],
        "counts": [kind.count for kind in steps],
        "cost": time.process_time() - begun,
    }


def run(recipe: str, overrides: list[str], folder: str) -> dict[str, object]:
    """The run's peak and the seconds of each step."""
    import unistep

    unistep.distill(recipe, overrides=overrides, out=folder, quiet=True)
    lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "seconds": [line["seconds_per_step"] for line in lines if "seconds_per_step" in line],
    }


def child(what: str, arguments: str, clock: str) -> None:
    """Entry of a process: prints JSON on its last line."""
    if clock == "cpu":
        time.perf_counter = time.process_time  # before unistep is imported, which then times with it
    print(json.dumps({"predict": predict, "run": run}[what](**json.loads(arguments))))


# -------------------------------------------------------------------------------------------------------- in the parent


def fresh(what: str, arguments: dict[str, object], clock: str) -> dict[str, object]:
    """What a fresh process answers."""
    command = [sys.executable, __file__, "--child", what, json.dumps(arguments), "--clock", clock]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(case: Case, clock: str, rounds: int) -> list[str]:
    """One row per kind of step: predicted and actual peak and seconds.

    Of several rounds the median peak and the least seconds count: other work only ever makes a step slower.
    """
    seen = [once(case, clock) for _ in range(rounds)]
    peaks = ratio(*(statistics.median(peaks) for peaks in zip(*(s.peaks for s in seen), strict=True)), 1e-6, 0)
    rows = []
    for kind in zip(*(s.seconds for s in seen), strict=True):
        planned, taken = (min(seconds) for seconds in zip(*kind, strict=True))
        rows.append(f"| {'' if rows else case.title} | {' | | ' if rows else peaks} | {ratio(planned, taken, 1, 2)} |")
    return [*rows, *(f"<!-- {s.remark} -->" for s in seen)]


@dataclass(frozen=True)
class Seen:
    """One plan and one run: planned and actual peak, the same of the seconds of each kind of step, how it went."""

    peaks: tuple[float, float]
    seconds: list[tuple[float, float]]
    remark: str


def once(case: Case, clock: str) -> Seen:
    """A plan, and then the run that was planned."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        overrides = [f"{key}={value}" for key, value in {**SHORT, **case.changes}.items()]
        if case.teacher is not None:  # hardly taught, so nothing to certify
            overrides.append(f"teacher={{teach: {short_teacher(place, case.teacher)}, certify: false}}")
        arguments = {"recipe": case.recipe, "overrides": overrides, "folder": str(place / "run")}
        planned, actual = fresh("predict", arguments, clock), fresh("run", arguments, clock)
    kinds, first = [], 0
    for seconds, count in zip(planned["seconds"], planned["counts"], strict=True):
        kinds.append((seconds, statistics.median(actual["seconds"][first + 1 : first + count])))
        first += count
    remark = f"highest in {planned['stage']}, planned in {planned['cost']:.0f} s; s a step: " + ", ".join(
        f"{planned:.2f} and {taken:.2f}" for planned, taken in kinds
    )
    return Seen((planned["peak"], actual["peak"]), kinds, remark)


def short_teacher(place: Path, changes: tuple[str, ...]) -> Path:
    """A recipe file of the digits' teacher, shortened."""
    from unistep.recipes.load import dump_recipe, load_recipe

    file = place / "teacher.yaml"
    file.write_text(dump_recipe(load_recipe("digits-teacher", [*SHORT_TEACHER, *changes])))
    return file


def ratio(predicted: float, actual: float, scale: float, digits: int) -> str:
    """Two numbers and how far the first is off."""
    return f"{predicted * scale:.{digits}f} | {actual * scale:.{digits}f} | {100 * (predicted / actual - 1):+.0f} %"


def main(names: list[str], clock: str, rounds: int) -> None:
    """Prints a table in Markdown."""
    print("| | MB planned | MB used | | s a step planned | s a step taken | |\n|---|---|---|---|---|---|---|")
    for name in names:
        for row in compare(CASES[name], clock, rounds):
            print(row, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: for a machine that is busy")
    parser.add_argument("--rounds", type=int, default=1, help="of plan and run; more for a machine that is busy")
    parser.add_argument("--child", nargs=2, metavar=("WHAT", "ARGUMENTS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child, arguments.clock)
    else:
        main(arguments.cases or ["digits", "fashion-mnist", "wide"], arguments.clock, arguments.rounds)
