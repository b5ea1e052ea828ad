"""The progress bar of pair generation: pairs done, pairs per second, time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class Rate(ProgressColumn):
    """Pairs per second, over the last half minute."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.3g} pairs/s" if speed else "... pairs/s", style="progress.data.speed")


@contextmanager
def pair_progress(total: int, done: int, show: bool) -> Iterator[Callable[[int], None]]:
    """A bar on stderr; yields the function that moves it on by so many pairs.

    Args:
        total: pairs to make, those done before included.
        done: pairs done before.
        show: False shows nothing.
    """
    columns = (
        TextColumn("pairs"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not show, speed_estimate_period=30) as progress:
        task = progress.add_task("pairs", total=total, completed=done)
        yield lambda rows: progress.advance(task, rows)
