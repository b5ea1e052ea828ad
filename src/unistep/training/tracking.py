"""The run's record on disk: metrics.jsonl, TensorBoard events and health.json, without repeated lines on resume."""

import json
import math
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from unistep.errors import UserError
from unistep.io.atomic import atomic_write
from unistep.io.text_files import parse_json
from unistep.training.distributed import on_rank_zero


class Tracker:
    """Writes logged values; `enabled=False` (ranks other than 0) writes nothing.

    Args:
        run_dir: the run's folder, made if need be.
        step: completed steps to go on from; later lines of an interrupted run are cut off.
        enabled: whether to write.

    Raises:
        UserError: if the folder cannot be written.
    """

    def __init__(self, run_dir: Path, step: int, enabled: bool = True):
        self.run_dir, self.enabled = run_dir, enabled
        self.file: TextIO | None = None
        self.board: Any = None
        self.hook = threading.excepthook
        on_rank_zero(lambda: self.open(step) if enabled else None)

    def open(self, step: int) -> None:
        """Makes the folder, cuts metrics.jsonl back to `step` and opens the files."""
        try:
            self.run_dir.mkdir(parents=True, exist_ok=True)
            truncate_metrics(self.run_dir / "metrics.jsonl", step)
            self.file = open(self.run_dir / "metrics.jsonl", "a")
            self.board = open_board(self.run_dir / "tensorboard", step)
            threading.excepthook = self.note_failed_thread
        except OSError as error:
            raise unwritable(self.run_dir, error) from error

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One line of metrics.jsonl and one point per value in TensorBoard; values that are not finite become null."""
        if self.file is None:
            return
        self.require_present()
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        try:
            self.file.write(json.dumps({"step": step} | finite) + "\n")
            self.file.flush()
            if self.board is not None:
                for name, value in values.items():
                    self.board.add_scalar(name, value, step)
        except OSError as error:
            raise unwritable(self.run_dir, error) from error

    def require_present(self) -> None:
        """Stops a run whose folder was removed or replaced while it was at work: nothing more could be kept.

        Raises:
            UserError: saying so.
        """
        if self.file is None:
            return
        path = self.run_dir / "metrics.jsonl"
        if not path.is_file() or not os.path.samestat(path.stat(), os.fstat(self.file.fileno())):
            raise UserError(
                f"{self.run_dir}: the run's folder was removed or replaced while it was at work; start it again"
            )

    def health(self, report: Mapping[str, Any]) -> None:
        """Replaces health.json."""
        if self.enabled:
            write_json(self.run_dir / "health.json", report)

    def note_failed_thread(self, failure: threading.ExceptHookArgs) -> None:
        """Prints no traceback where TensorBoard's thread could not write: the writer's next use raises it."""
        ours = type(failure.thread).__module__.startswith("tensorboard.")
        if not (ours and isinstance(failure.exc_value, OSError)):
            self.hook(failure)

    def close(self) -> None:
        """Closes the files; what TensorBoard can no longer write is left out, metrics.jsonl has the same numbers."""
        if self.file is not None:
            self.file.close()
            self.file = None
        try:
            if self.board is not None:
                self.board.close()
        except OSError:  # the folder is gone or the disk full; its thread may try once more, so the hook stays
            return
        if threading.excepthook == self.note_failed_thread:
            threading.excepthook = self.hook


def open_board(folder: Path, step: int) -> Any:
    """A TensorBoard writer that hides events after `step` of an interrupted run; None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)


def truncate_metrics(path: Path, step: int) -> None:
    """Keeps the whole lines up to `step` completed steps; a line cut by a kill goes too."""
    if not path.exists():
        return
    kept = [line for line in path.read_text(errors="replace").splitlines() if step_of(line) <= step]
    write_text(path, "".join(line + "\n" for line in kept))


def step_of(line: str) -> float:
    """The step of a metrics line, infinity if it is not whole."""
    try:
        step = parse_json(line, "metrics.jsonl", "")["step"]
    except (UserError, LookupError, TypeError):
        return math.inf
    return step if type(step) is int else math.inf


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replaces a JSON file in one go."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replaces a text file in one go."""
    try:
        atomic_write(path, text.encode())
    except OSError as error:
        raise unwritable(path.parent, error) from error


def unwritable(folder: Path, error: OSError) -> UserError:
    """The one line for a folder that cannot be written."""
    return UserError(
        f"{folder}: cannot be written ({error.strerror or error}); free space or choose another folder with --out"
    )
