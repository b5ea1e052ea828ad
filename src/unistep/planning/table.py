"""A plan for the terminal: networks, stages, memory by component, the verdict and what would help."""

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from unistep.planning.result import Plan, Stage, Switch

UNITS = ("B", "kB", "MB", "GB", "TB")


def print_plan(plan: Plan, console: Console | None = None) -> None:
    """Prints a plan."""
    console = console or Console()
    console.print(f"{plan.recipe} on {plan.device}, {plan.threads} thread{'s' * (plan.threads > 1)}", highlight=False)
    for table in (networks_table(plan), stages_table(plan), memory_table(plan.highest)):
        console.print(table)
    for line in verdict(plan):
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
    """One row per stage, under a training one per kind of step; the totals last."""
    table = new_table("stage", "network evaluations", "time", "memory", "disk")
    for stage in plan.stages:
        figures = (
            counted(stage.evaluations),
            duration(stage.seconds),
            size(stage.peak),
            size(sum(stage.disk.values())),
        )
        table.add_row(stage.name, *figures)
        for kind in stage.steps:
            name = f"  {kind.count:,} x {' + '.join(kind.phases)}"
            table.add_row(name, counted(kind.evaluations), duration(kind.seconds), style="dim")
    needs = plan.needs
    totals = (counted(plan.evaluations), duration(plan.seconds), size(needs["memory"]), size(needs["disk"]))
    table.add_row("in all", *totals, style="bold")
    return table


def memory_table(stage: Stage) -> Table:
    """The components of a stage's highest moment."""
    table = new_table(f"memory at its highest, {stage.name}", "")
    for component, taken in stage.memory.items():
        if taken:
            table.add_row(component, size(taken))
    return table


def verdict(plan: Plan) -> Iterator[str]:
    """Whether it fits, and what would make it fit."""
    if not plan.measured:
        yield "the networks alone do not fit, so nothing was measured: memory is a lower bound from parameter counts"
    yield ("fits: " if plan.fits else "does not fit: ") + ", ".join(balance(plan, name) for name in plan.needs)
    if plan.switches:
        yield "what would help:"
    for switch in plan.switches:
        yield f"  {described(switch)}"


def balance(plan: Plan, resource: str) -> str:
    """What is needed of a resource, and what there is."""
    there = f"{size(plan.available[resource])} available"  # type: ignore[index]
    return f"{resource} {size(plan.needs[resource])} of {there}" + (f" in {plan.place}" if resource == "disk" else "")  # type: ignore[index]


def described(switch: Switch) -> str:
    """A switch in one line."""
    sets = " ".join(f"--set {value}" for value in switch.set)
    ranks = f" on {switch.ranks} ranks, each with memory of its own" if switch.ranks > 1 else ""
    enough = "fits" if switch.fits else "not enough alone"
    return f"{sets}{ranks}: {size(switch.saves)} less {switch.resource}, {enough} ({switch.changes})"


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
