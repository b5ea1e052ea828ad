"""Ctrl-C and SIGTERM as a wish to stop after the step and its evaluation; a second one stops at once."""

import signal
import threading
from types import FrameType, TracebackType


class StopSignals:
    """Inside the `with` block SIGINT and SIGTERM only set `received`; outside the main thread it does nothing."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.previous: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self.previous = {s: signal.signal(s, self.note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def note(self, number: int, frame: FrameType | None) -> None:
        """Remembers the signal and gives the next one its usual effect."""
        self.received = number
        self.release()

    def release(self) -> None:
        """Puts the former handlers back."""
        for number, handler in self.previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self.previous = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
