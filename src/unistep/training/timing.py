"""What a step takes, as it stands in the log."""

import time


class StepTimer:
    """Seconds per step since the last log line."""

    def __init__(self, batch: int):
        self.batch, self.steps, self.seconds, self.started = batch, 0, 0.0, 0.0

    def start(self) -> None:
        """A step begins."""
        self.started = time.perf_counter()

    def stop(self) -> None:
        """A step has ended."""
        self.steps, self.seconds = self.steps + 1, self.seconds + time.perf_counter() - self.started

    def values(self) -> dict[str, float]:
        """Step time and images per second, and a fresh start."""
        per_step = self.seconds / max(self.steps, 1)
        self.steps, self.seconds = 0, 0.0
        return {"seconds_per_step": per_step, "images_per_second": self.batch / per_step}
