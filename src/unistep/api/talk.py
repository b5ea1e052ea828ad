"""What a verb says while it works: lines on stderr from the first rank, or nothing."""

from collections.abc import Callable, Iterable

from rich.console import Console

from unistep.training.distributed import is_main

Talk = Callable[[str], None]


def talker(quiet: bool) -> Talk:
    """A function that prints one line, or swallows it when quiet or not on the first rank."""
    console = Console(stderr=True)

    def say(line: str) -> None:
        if not quiet and is_main():
            console.print(line, highlight=False, markup=False, soft_wrap=True)

    return say


def with_flags(overrides: Iterable[str], seed: int | None, device: str) -> list[str]:
    """Overrides with the flags that stand for one: `--seed` and `--device`."""
    flags = [] if seed is None else [f"training.seed={seed}"]
    return [*overrides, *flags, *([] if device == "auto" else [f"training.device={device}"])]
