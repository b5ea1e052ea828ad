"""What a verb says while it works: lines on stderr from the first rank, or nothing."""

from dataclasses import dataclass, field

from rich.console import Console

from unistep.training.distributed import is_rank_zero


@dataclass(frozen=True)
class Talk:
    """A function that prints one line, or swallows it when quiet or not on the first rank."""

    quiet: bool = False
    console: Console = field(default_factory=lambda: Console(stderr=True))

    @property
    def shows(self) -> bool:
        """Whether anything is shown: not when quiet, and on the first rank only."""
        return not self.quiet and is_rank_zero()

    def __call__(self, line: str) -> None:
        if self.shows:
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)
