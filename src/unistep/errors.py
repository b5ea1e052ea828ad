"""The one exception meant for users: a single line that says what was found, what was expected and what to do."""


class UserError(ValueError):
    """A mistake the user can mend. The CLI prints it as one line and exits with code 2, without a traceback."""
