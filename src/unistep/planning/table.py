"""A plan for the terminal: networks, stages, memory by component, the verdict and what would help."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from unistep.costing.result import Plan, Resource, Stage, Suggestion

UNITS = ("B", "kB", "MB", "GB", "TB")


def print_plan(plan: Plan, console: Console | None = None) -> None:
    """Prints a plan."""
    console = console or Console()
    console.print(f"{plan.recipe} on {plan.device}, {plan.threads} thread{'s' * (plan.threads > 1)}", highlight=False)
    for table in (networks_table(plan), stages_table(plan), memory_table(plan.highest), disk_table(plan)):
        console.print(table)
    for line in [*notes(plan), *verdict(plan)]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def new_table(*titles: str) -> Table:
    """An empty table, names on the left and figures on the right."""
    table = Table(header_style="bold", pad_edge=False, box=SIMPLE_HEAD)
    for i, title in enumerate(titles):
        table.add_column(title, justify="left" if i == 0 else "right")
    return table


def networks_table(plan: Plan) -> Table:
    """One row per network."""
    table = new_table("network", "parameters", "")
    for network in plan.networks:
        table.add_row(network.name, f"{network.parameters:,}", "learns" if network.learns else "frozen")
    return table


def stages_table(plan: Plan) -> Table:
    """One row per stage, under a training one per kind of step with what one such step takes; the totals last."""
    table = new_table("stage", "evaluations", "time", "memory", "disk")
    for stage in plan.stages:
        figures = (
            counted(stage.evaluations),
            duration(stage.seconds),
            size(stage.peak),
            size(sum(stage.disk.values())),
        )
        table.add_row(stage.name, *figures)
        for kind in stage.steps:
            before = f", {kind.depth} before" if kind.depth else ""
            name = f"  {kind.count:,} x {named(kind.phases)}{before}"
            table.add_row(name, f"{counted(kind.evaluations)} each", f"{duration(kind.seconds)} each", style="dim")
    needs = plan.needs
    totals = (counted(plan.evaluations), duration(plan.seconds), size(needs["memory"]), size(needs["disk"]))
    table.add_row("in all", *totals, style="bold")
    return table


def named(phases: Sequence[str]) -> str:
    """Phases by name, repetitions (`fake_score.1`, `fake_score.2`) counted: `generator + 3 fake_score`."""
    counts = Counter(phase.partition(".")[0] for phase in phases)
    return " + ".join(f"{count} {name}" if count > 1 else name for name, count in counts.items())


def memory_table(stage: Stage) -> Table:
    """The components of a stage's highest moment."""
    return parts_table(f"memory at its peak, {stage.name}", stage.memory)


def disk_table(plan: Plan) -> Table:
    """What is written, by stage."""
    files = {f"{stage.name}: {name}": taken for stage in plan.stages for name, taken in stage.disk.items()}
    return parts_table(f"disk, {plan.place}", files)


def parts_table(title: str, parts: Mapping[str, int]) -> Table:
    """One row per part that takes anything."""
    table = new_table(title, "")
    for name, taken in parts.items():
        if taken:
            table.add_row(name, size(taken))
    return table


def notes(plan: Plan) -> Iterator[str]:
    """What the figures mean and how far they go."""
    yield "one evaluation is one sample through one network, a backward pass counts as one or two more"
    yield "memory is that of each stage's highest moment; each takes the place of the one before"
    for stage in plan.stages:
        share = min((kind.measured for kind in stage.steps), default=1.0)
        if share < 1:
            yield f"{stage.name}: steps were run with up to {100 * share:.0f} % of the batch, the rest is extrapolated"
    if not plan.measured:
        yield "the networks alone do not fit, so nothing was measured: memory is a lower bound from parameter counts"


def verdict(plan: Plan) -> Iterator[str]:
    """Whether it fits, and what would make it fit."""
    time = [] if plan.seconds is None else [f"about {duration(plan.seconds)}"]
    needs = ", ".join([*(balance(plan, resource) for resource in plan.needs), *time])
    yield f"{'fits' if plan.fits else 'does not fit'}: {needs}"
    for resource in plan.needs:
        if plan.needs[resource] > plan.available[resource]:
            yield from remedies(plan, resource)


def remedies(plan: Plan, resource: Resource) -> Iterator[str]:
    """What would make it fit, as far as one resource goes, and what would only help."""
    switches = [switch for switch in plan.switches if switch.resource == resource]
    if not any(switch.fits for switch in switches):
        yield f"no setting saves enough {resource}: it takes a machine with more"
    for fits, title in (
        (True, f"any one of these is enough for {resource}:"),
        (False, "what helps and is not enough:"),
    ):
        if found := [switch for switch in switches if switch.fits == fits]:
            yield from [title, *(f"  {described(switch)}" for switch in found)]


def balance(plan: Plan, resource: Resource) -> str:
    """What is needed of a resource, and what there is."""
    return f"{size(plan.needs[resource])} of {resource} ({size(plan.available[resource])} available)"


def described(switch: Suggestion) -> str:
    """A switch in one line."""
    sets = " ".join(f"--set {value}" for value in switch.set)
    ranks = f" on {switch.ranks} ranks, each with memory of its own" if switch.ranks > 1 else ""
    return f"{sets}{ranks}: {size(switch.saves)} less {switch.resource} ({switch.changes})"


def counted(number: int | None) -> str:
    """A number with commas; a dash for one that was not measured."""
    return "-" if number is None else f"{number:,}"


def size(count: int) -> str:
    """Bytes in decimal units: 12 MB, 1.23 GB."""
    value, unit = float(count), 0
    while value >= 999.5 and unit + 1 < len(UNITS):
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {UNITS[unit]}" if unit < 3 else f"{value:.2f} {UNITS[unit]}"


def duration(seconds: float | None) -> str:
    """0.12 s, 95 s, 12 min, 3.4 h; a dash for what was not measured."""
    if seconds is None:
        return "-"
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
