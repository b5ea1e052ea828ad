"""What the user sees while training: a progress bar in a terminal, single quiet lines elsewhere."""

from collections.abc import Callable, Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unistep.io.progress import Pace, duration


class ProgressDisplay:
    """Progress of a run; `enabled=False` (ranks other than 0) shows nothing.

    Args:
        steps: length of the run.
        done: completed steps at the start.
        enabled: whether to show anything.
        message: takes the lines instead of the console, if given.
    """

    def __init__(self, steps: int, done: int, enabled: bool = True, message: Callable[[str], None] | None = None):
        self.steps, self.enabled, self.message = steps, enabled, message
        self.console = Console(stderr=True)
        self.pace = Pace()
        self.bar: Progress | None = None
        if enabled and message is None and self.console.is_terminal:
            self.bar = Progress(
                BarColumn(bar_width=20), MofNCompleteColumn(), TimeRemainingColumn(),
                TextColumn("{task.fields[values]}"), console=self.console,
            )  # fmt: skip
            self.task = self.bar.add_task("training", total=steps, completed=done, values="")
            self.bar.start()

    def advance(self, step: int) -> None:
        """Moves the bar to `step` completed steps."""
        if self.bar is not None:
            self.bar.update(self.task, completed=step)

    def values(self, step: int, values: Mapping[str, float]) -> None:
        """Shows the logged values: loss terms, step time, rate, time left."""
        if self.bar is not None:
            self.bar.update(
                self.task, values=describe({k: v for k, v in values.items() if k != "images_per_second"}, 3)
            )
        elif self.enabled and (self.pace.due() or step == self.steps):
            left = (self.steps - step) * values.get("seconds_per_step", 0.0)
            self.say(f"step {step}/{self.steps}  {describe(values)}  {duration(left)} left")

    def say(self, line: str) -> None:
        """One line for the user, above the bar."""
        if not self.enabled:
            return
        if self.message is not None:
            self.message(line)
        else:
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self.bar is not None:
            self.bar.stop()


def describe(values: Mapping[str, float], digits: int = 4) -> str:
    """The values worth a glance, on one line."""
    shown = [f"{name[5:]} {value:.{digits}g}" for name, value in values.items() if name.startswith("loss/")]
    if "seconds_per_step" in values:
        shown.append(f"{1000 * values['seconds_per_step']:.0f} ms/step")
    if "images_per_second" in values:
        shown.append(f"{values['images_per_second']:.0f} images/s")
    return "  ".join(shown)
