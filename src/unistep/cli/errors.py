"""What a user sees when something goes wrong: a line for each mistake, a code, and how to go on."""

import errno
import os
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


def one_line_errors(verb: Callable[..., None]) -> Callable[..., None]:
    """Wraps a verb: mistakes and full disks end in red lines and code 2, Ctrl-C in code 130."""

    @wraps(verb)
    def run(*args: Any, **kwargs: Any) -> None:
        quiet_libraries()
        try:
            verb(*args, **kwargs)
        except UserError as error:
            fail(*error.lines)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader left (`| head`); say nothing at exit either
        except OSError as error:
            fail(describe_os_error(error))
        except KeyboardInterrupt:
            typer.secho("interrupted: run the same command again to go on", fg="yellow", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            if "No space left on device" not in str(error):  # libraries wrap the operating system's words
                raise
            fail("No space left on device; free some space and run the same command again")

    return run


def quiet_libraries() -> None:
    """Keeps off the terminal what libraries warn of about themselves; what goes wrong is raised."""
    for library in CHATTY:
        os.environ.setdefault(f"{library.upper()}_VERBOSITY", "error")
        warnings.filterwarnings("ignore", category=FutureWarning, module=rf"{library}\b")


def fail(*lines: str) -> None:
    """Prints a red line on stderr for each mistake and exits with code 2."""
    for line in lines:
        typer.secho(f"error: {' '.join(line.split())}", fg="red", err=True)
    raise typer.Exit(USER_MISTAKE) from None


def describe_os_error(error: OSError) -> str:
    """`path: what the system says; what to do`."""
    place = error.filename2 or error.filename
    reason = error.strerror or str(error)
    return f"{place}: {reason}{remedy(error)}" if place else f"{reason}{remedy(error)}"


def remedy(error: OSError) -> str:
    """What to do about it, where we know."""
    if isinstance(error, PermissionError | FileNotFoundError) or error.errno == errno.EROFS:
        return "; choose another folder with --out"
    if error.errno in FULL:
        return "; free some space and run the same command again"
    if isinstance(error, FileExistsError | NotADirectoryError):
        return ": a file is where a folder is needed; choose another place with --out"
    return ""
