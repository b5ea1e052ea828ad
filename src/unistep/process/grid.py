"""The one check that all time grids share."""

from unistep.errors import UserError


def require_steps(field: str, found: int, minimum: int = 1, maximum: int | None = None) -> None:
    """Refuses a number of steps or levels outside minimum..maximum.

    Raises:
        UserError: naming the field, the number found and the numbers allowed.
    """
    if found < minimum or (maximum is not None and found > maximum):
        upper = "" if maximum is None else f" and at most {maximum}"
        raise UserError(f"{field}: found {found}, expected a whole number, at least {minimum}{upper}")
