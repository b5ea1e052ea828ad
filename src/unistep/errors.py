"""The exceptions meant for users: one line a mistake that says what was found, what was expected and what to do."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """A mistake the user can mend. The CLI prints it as one line and exits with code 2, without a traceback."""

    @property
    def lines(self) -> tuple[str, ...]:
        """One line for each mistake."""
        return (str(self),)


class UserErrors(UserError):
    """Several mistakes, one a line."""

    def __init__(self, lines: Iterable[str]):
        self._lines = tuple(lines)
        super().__init__("\n".join(self._lines))

    @property
    def lines(self) -> tuple[str, ...]:
        return self._lines


@contextmanager
def rename_section(found: str, written: str) -> Iterator[None]:
    """Names the mistakes of a block by the section that the user wrote, such as `evaluation.real.size` for `data.size`.

    Args:
        found: the section's name where the mistakes are raised.
        written: its name in the recipe.
    """
    try:
        yield
    except UserError as error:
        section = re.compile(rf"(?<![\w./\\-]){re.escape(found)}(?=[.:])")  # no part of a longer name or of a path
        raise UserErrors(section.sub(written, line) for line in error.lines) from error


class Mistakes:
    """Collects the mistakes of several checks, so that all of them are told at once.

    Each check runs under `with mistakes.collect():`, which keeps a `UserError` instead of letting it out;
    `require_none` raises what was kept.
    """

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}

    def __bool__(self) -> bool:
        return bool(self._lines)

    def add(self, *lines: str) -> None:
        """Keeps mistakes, each of them once."""
        self._lines |= dict.fromkeys(lines)

    @contextmanager
    def collect(self, setting: str = "") -> Iterator[None]:
        """Keeps the mistakes that the block raises and goes on after it.

        Args:
            setting: put before the lines that do not begin with it.
        """
        try:
            yield
        except UserError as error:
            self.add(*(line if line.startswith(setting) else f"{setting}: {line}" for line in error.lines))

    def require_none(self) -> None:
        """Does nothing if no mistake was found.

        Raises:
            UserError: for one mistake, or `UserErrors` for several.
        """
        if len(self._lines) == 1:
            raise UserError(*self._lines)
        if self._lines:
            raise UserErrors(self._lines)


def one_line(error: BaseException) -> str:
    """What an error says, in one line of bearable length."""
    return shortened(str(error)) or type(error).__name__


def brief(value: object) -> str:
    """A value as a message shows it, cut after 80 characters."""
    text = str(value)
    return text if len(text) <= 80 else text[:80] + "..."


def shortened(text: str) -> str:
    """Its words in one line, cut off where there are too many."""
    words = " ".join(text.split())
    return words if len(words) <= 300 else words[:300] + "..."
