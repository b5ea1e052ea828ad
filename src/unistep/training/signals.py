"""Ctrl-C, SIGTERM and SIGHUP as a wish to stop after the step and its evaluation; a second one stops at once."""

import signal
import threading
from types import FrameType, TracebackType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """Inside the `with` block these signals only set `received`; outside the main thread it does nothing."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.previous: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            wished = [s for s in STOPPING if signal.getsignal(s) != signal.SIG_IGN]  # `nohup` ignores SIGHUP
            self.previous = {s: signal.signal(s, self.note) for s in wished}
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
