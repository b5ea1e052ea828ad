"""Progress of long stages: a bar with the time left in a terminal, a line now and then elsewhere."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

QUIET_SECONDS = 15.0  # least time between two lines
SHORT_SECONDS = 2.0  # stages that take no longer show nothing


class Pace:
    """Says when the next line is due: the first one at once, every other `QUIET_SECONDS` after the last."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock, self.last = clock, -float("inf")

    def due(self) -> bool:
        """Whether to print now; if so, the next one waits."""
        now = self.clock()
        if now - self.last <= QUIET_SECONDS:
            return False
        self.last = now
        return True


def duration(seconds: float) -> str:
    """75 -> 1:15."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


@contextmanager
def show_progress(title: str, total: int, show: bool = True, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Shows on stderr how far a stage is and how long it will take; nothing in its first `SHORT_SECONDS`.

    In a terminal that is a bar, elsewhere a line now and then.

    Args:
        title: of the stage, in words.
        total: units of work.
        show: False shows nothing.
        done: units done before.

    Yields:
        Called with the units done so far, those done before included.
    """
    from rich.console import Console

    display = StageProgress(title, total, done, Console(stderr=True)) if show else None
    try:
        yield display.update if display is not None else lambda done: None
    finally:
        if display is not None:
            display.close()


class StageProgress:
    """The display behind `show_progress`.

    Args:
        title, total, done: see there.
        console: where to show it.
        clock: seconds.
    """

    def __init__(self, title: str, total: int, done: int, console: Any, clock: Callable[[], float] = time.monotonic):
        self.title, self.total, self.before, self.console, self.clock = title, total, done, console, clock
        self.started, self.pace = clock(), Pace(clock)
        self.bar: Any = None
        self.task: Any = None

    def update(self, done: int) -> None:
        """Takes note of the units done so far."""
        elapsed = self.clock() - self.started
        if elapsed < SHORT_SECONDS:
            return
        if self.console.is_terminal:
            self.move_bar(done)
        elif done > self.before and self.pace.due():
            rate = (done - self.before) / elapsed
            left = duration((self.total - done) / rate)
            line = f"{self.title} {done:,}/{self.total:,}  {rate:.3g} a second  {left} left"
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def move_bar(self, done: int) -> None:
        """Moves the bar, which is drawn the first time."""
        if self.bar is None:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
            self.bar = Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=self.console,
                                transient=True, speed_estimate_period=30)  # fmt: skip
            self.task = self.bar.add_task(self.title, total=self.total, completed=self.before)
            self.bar.start()
        self.bar.update(self.task, completed=done)

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self.bar is not None:
            self.bar.stop()


@contextmanager
def show_stages(show: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """Shows stages one after another, each as `show_progress` does.

    Yields:
        Called with a stage's title, the units done and their total; another title begins another stage.
    """
    from rich.console import Console

    shown: list[StageProgress] = []

    def update(title: str, done: int, total: int) -> None:
        if not shown or shown[-1].title != title:
            if shown:
                shown[-1].close()
            shown.append(StageProgress(title, total, done, Console(stderr=True)))
        shown[-1].update(done)

    try:
        yield update if show else lambda title, done, total: None
    finally:
        if shown:
            shown[-1].close()


@contextmanager
def show_waiting(title: str, show: bool = True) -> Iterator[None]:
    """Shows on stderr that a stage of unknown length is at work, once it has taken `SHORT_SECONDS`.

    In a terminal that is a bar with the time it has taken, elsewhere one line.
    """
    from rich.console import Console

    console = Console(stderr=True)
    shown: list[Any] = []

    def begin() -> None:
        if not console.is_terminal:
            console.print(f"{title} ...", highlight=False, markup=False, soft_wrap=True)
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        bar = Progress(TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(),
                       console=console, transient=True)  # fmt: skip
        bar.add_task(title, total=None)
        bar.start()
        shown.append(bar)

    timer = threading.Timer(SHORT_SECONDS, begin)
    timer.daemon = True
    if show:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if show:
            timer.join()  # it may be about to draw
        for bar in shown:
            bar.stop()
