"""The program `unistep`, also reachable as `python -m unistep`."""

from unistep.cli import app


def main() -> None:
    """Runs the command line."""
    app(prog_name="unistep")


if __name__ == "__main__":
    main()
