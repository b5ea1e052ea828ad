"""What a user sees when something goes wrong: a line for each mistake, a code, and how to go on."""

import errno
import os
import re
import signal
import threading
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any

import typer

from unistep.errors import UserError

USER_MISTAKE = 2
INTERRUPTED = 130
CHATTY = ("diffusers", "transformers")
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory|ALLOC_FAILED|Cannot allocate memory")
SIZE = re.compile(r"allocate ([\d.]+ ?(?:[KMGTPE]i?B|bytes))")
LOWER = {
    "pairs": "pairs.tile",
    "evaluation": "evaluation.batch or evaluation.samples",
    "teacher_checks": "the teacher's size",
    "data": "the size of the files in data",
    "io": "the size of the file",
    "export": "the network's size",
    "training": "training.batch, or raise training.accumulate",
    "costing": "training.batch",
}
"""What to lower where memory ends, by the part of the package that asked for it."""


def one_line_errors(verb: Callable[..., None]) -> Callable[..., None]:
    """Wraps a verb: mistakes and full disks end in red lines and code 2, Ctrl-C in code 130."""

    @wraps(verb)
    def run(*args: Any, **kwargs: Any) -> None:
        quiet_libraries()
        interrupt_on_signals()
        try:
            verb(*args, **kwargs)
        except UserError as error:
            fail(*error.lines)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader left (`| head`); say nothing at exit either
        except OSError as error:
            fail(describe_memory_error(error) if error.errno == errno.ENOMEM else describe_os_error(error))
        except OverflowError as error:
            fail(f"a number is too large to compute with ({error}); lower the settings that are out of the usual")
        except KeyboardInterrupt:
            typer.secho("interrupted: run the same command again to go on", fg="yellow", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            if is_out_of_memory(error):
                fail(describe_memory_error(error))
            if "No space left on device" not in str(error):  # libraries wrap the operating system's words
                raise
            fail("No space left on device; free some space and run the same command again")

    return run


def interrupt_on_signals() -> None:
    """Makes SIGTERM and SIGHUP end a verb as Ctrl-C does, so that everything is saved and cleared up.

    Several ranks wait for each other where no handler is called; torchrun's signal must end them.
    """
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    if alone and threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, signal.default_int_handler)


def quiet_libraries() -> None:
    """Keeps off the terminal what libraries warn of about themselves; what goes wrong is raised."""
    for library in CHATTY:
        os.environ.setdefault(f"{library.upper()}_VERBOSITY", "error")
        warnings.filterwarnings("ignore", category=FutureWarning, module=rf"{library}\b")


def fail(*lines: str) -> None:
    """Prints a red line on stderr for each mistake and exits with code 2."""
    for line in lines:
        typer.secho(f"error: {printable(' '.join(line.split()))}", fg="red", err=True)
    raise typer.Exit(USER_MISTAKE) from None


def printable(text: str) -> str:
    """Text without control characters: what stands in recipes and file names must not steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: numpy's and Python's are MemoryErrors, torch's are RuntimeErrors."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(NO_MEMORY.search(str(error))))


def describe_memory_error(error: BaseException) -> str:
    """What was being allocated, by which part of the package, and which setting to lower."""
    modules, trace = [], error.__traceback__
    while trace is not None:
        modules.append(str(trace.tb_frame.f_globals.get("__name__", "")))
        trace = trace.tb_next
    own = [module for module in modules if module.startswith("unistep.")]
    parts = [module.split(".")[1] for module in own]
    lower = next((LOWER[part] for part in reversed(parts) if part in LOWER), "the sizes in the recipe")
    asked = SIZE.search(str(error))
    what = f"{asked[1]} could not be allocated" if asked else "an allocation failed"
    place = f" in {own[-1]}" if own else ""
    return f"not enough memory: {what}{place}; lower {lower}, or free memory"


def describe_os_error(error: OSError) -> str:
    """`path: what the system says; what to do`."""
    place = error.filename2 or error.filename
    reason = error.strerror or str(error)
    return f"{os.fsdecode(place)}: {reason}{remedy(error)}" if place else f"{reason}{remedy(error)}"


def remedy(error: OSError) -> str:
    """What to do about it, where we know."""
    place = error.filename2 or error.filename
    if isinstance(error, PermissionError) and is_unreadable(place):
        return "; make it readable, or name another file"
    if isinstance(error, FileNotFoundError) and is_in_a_folder(place):
        return "; put it there, or name another file"
    if isinstance(error, PermissionError | FileNotFoundError) or error.errno == errno.EROFS:
        return "; choose another folder with --out"
    if error.errno in FULL:
        return "; free some space and run the same command again"
    if isinstance(error, FileExistsError | NotADirectoryError):
        return ": a file is where a folder is needed; choose another place with --out"
    return ""


def is_unreadable(place: str | None) -> bool:
    """Whether a path is there and may not be read, so that reading it failed."""
    return place is not None and os.path.lexists(place) and not os.access(place, os.R_OK)


def is_in_a_folder(place: str | None) -> bool:
    """Whether only the file itself is missing: writing it would have made it, so reading it failed."""
    return place is not None and not os.path.lexists(place) and os.path.isdir(os.path.dirname(place) or ".")
