"""The program `unistep`, also reachable as `python -m unistep`."""

import os
import sys
from typing import NoReturn

if __name__ == "__main__" and not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:
    del sys.path[0]  # `python -m` puts the working directory first: a torch.py there would be executed

from unistep.cli import app  # noqa: E402
from unistep.cli.completion import IN_BASH, VARIABLE, complete_in_bash


def run() -> None:
    """Parses the arguments and runs the verb, or completes them."""
    app(prog_name="unistep")


def main() -> None:
    """Runs the command line."""
    try:
        if os.environ.get(VARIABLE) == IN_BASH:
            complete_in_bash(run)
        run()
    except SystemExit as end:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            leave(end.code)
        raise


def leave(code: str | int | None) -> NoReturn:
    """Ends one of several ranks at once, its output written, without taking the interpreter down.

    gloo's threads outlive their process group, and one that lets go of a tensor while the interpreter is being taken
    down aborts the process: a finished rank would look like a failed one.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    main()
