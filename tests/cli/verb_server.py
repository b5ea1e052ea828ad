"""A script that runs verbs of the command line in forked children, which start at once and which one may kill."""

import importlib
import json
import os
import sys

# What a verb imports as it goes: imported once, here, a child need not.
WARM = (
    "matplotlib.backends.backend_agg", "sklearn.datasets", "torch.distributed.checkpoint.hf_storage",
    "torch.utils.tensorboard", "unistep.api", "unistep.cli",
)  # fmt: skip


def serve() -> None:
    """For each line of JSON (log file, arguments) on stdin a child runs `unistep ARGUMENTS`.

    Prints the child's id, then, asked by an empty line, its wait status. The parent has used no thread before it forks.
    """
    for module in WARM:
        importlib.import_module(module)
    print("ready", flush=True)
    for line in sys.stdin:
        log, arguments = json.loads(line)
        child = os.fork()
        if child == 0:
            run(log, arguments)
        print(child, flush=True)
        sys.stdin.readline()  # until then the id is the child's, dead or alive
        print(os.waitpid(child, 0)[1], flush=True)


def run(log: str, arguments: list[str]) -> None:
    """The program in this process, as the shell would start it; never returns."""
    from unistep.cli import app

    output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    code = 70  # an exception that is no exit
    try:
        app(arguments, prog_name="unistep")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
