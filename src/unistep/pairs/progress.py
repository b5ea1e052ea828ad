"""Progress of pair generation: pairs done, pairs per second, time left; a bar in a terminal, single lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from unistep.io.progress import Pace, duration

Advance = Callable[[int], None]
"""Called with the pairs made since the last call."""


class Rate(ProgressColumn):
    """Pairs per second, over the last half minute."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.3g} pairs/s" if speed else "... pairs/s", style="progress.data.speed")


class Lines:
    """A line every so often and one at the end, with the rate since the beginning."""

    def __init__(self, total: int, done: int, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic):
        self.total, self.done, self.say, self.clock = total, done, say, clock
        self.pace, self.before, self.started = Pace(clock), done, clock()

    def advance(self, rows: int) -> None:
        """Takes note of so many more pairs."""
        self.done += rows
        if self.pace.due() or self.done == self.total:
            rate = (self.done - self.before) / max(self.clock() - self.started, 1e-9)
            left = duration((self.total - self.done) / rate)
            self.say(f"pairs {self.done}/{self.total}  {rate:.3g} pairs/s  {left} left")


@contextmanager
def pair_progress(total: int, done: int, show: bool) -> Iterator[Advance]:
    """Progress on stderr; yields the function that moves it on.

    Args:
        total: pairs to make, those done before included.
        done: pairs done before.
        show: False shows nothing.
    """
    console = Console(stderr=True, quiet=not show)
    if not console.is_terminal:
        yield Lines(total, done, lambda line: console.print(line, highlight=False, soft_wrap=True)).advance
        return
    columns = (
        TextColumn("pairs"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not show, speed_estimate_period=30) as progress:
        task = progress.add_task("pairs", total=total, completed=done)
        yield lambda rows: progress.advance(task, rows)
