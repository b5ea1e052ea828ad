"""Progress where there is no terminal: a line now and then, with durations as people write them."""

import time
from collections.abc import Callable

QUIET_SECONDS = 15.0  # least time between two lines


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
