"""The one exception meant for users: a single line that says what was found, what was expected and what to do."""


class UserError(ValueError):
    """A mistake the user can mend. The CLI prints it as one line and exits with code 2, without a traceback."""


def one_line(error: BaseException) -> str:
    """What an error says, in one line of bearable length."""
    return shortened(str(error)) or type(error).__name__


def shortened(text: str) -> str:
    """Its words in one line, cut off where there are too many."""
    words = " ".join(text.split())
    return words if len(words) <= 300 else words[:300] + "..."
