"""What a verb says while it works: lines on stderr from the first rank, or nothing."""

from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from unistep.recipes.merge import merge
from unistep.recipes.overrides import Overrides, read_overrides
from unistep.training.distributed import is_main


@dataclass(frozen=True)
class Talk:
    """A function that prints one line, or swallows it when quiet or not on the first rank."""

    quiet: bool = False
    console: Console = field(default_factory=lambda: Console(stderr=True))

    @property
    def shows(self) -> bool:
        """Whether anything is shown: not when quiet, and on the first rank only."""
        return not self.quiet and is_main()

    def __call__(self, line: str) -> None:
        if self.shows:
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)


def with_flags(overrides: Overrides, seed: int | None, device: str) -> dict[str, Any]:
    """Overrides with the flags that stand for one: `--seed` and `--device`."""
    flags = {"seed": seed, "device": None if device == "auto" else device}
    given = {key: value for key, value in flags.items() if value is not None}
    return merge(read_overrides(overrides), {"training": given} if given else {})
