"""What a verb says while it works: lines on stderr from the first rank, or nothing."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from rich.console import Console

from unistep.training.distributed import is_main


@dataclass(frozen=True)
class Talk:
    """A function that prints one line, or swallows it when quiet or not on the first rank."""

    quiet: bool = False
    console: Console = field(default_factory=lambda: Console(stderr=True))

    def __call__(self, line: str) -> None:
        if not self.quiet and is_main():
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)


def with_flags(overrides: Iterable[str], seed: int | None, device: str) -> list[str]:
    """Overrides with the flags that stand for one: `--seed` and `--device`."""
    flags = [] if seed is None else [f"training.seed={seed}"]
    return [*overrides, *flags, *([] if device == "auto" else [f"training.device={device}"])]
