"""The one exception meant for users: a single line that says what was found, what was expected and what to do."""


class UserError(ValueError):
    """A mistake the user can mend. The CLI prints it as one line and exits with code 2, without a traceback."""


def one_line(error: BaseException) -> str:
    """What an error says, in one line of bearable length."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 300 else words[:300] + "..."
