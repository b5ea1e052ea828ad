"""The checks that processes share: numbers of steps, and numbers that are finite."""

import math

from unistep.errors import UserError


def require_steps(field: str, found: int, minimum: int = 1, maximum: int | None = None) -> None:
    """Refuses a number of steps or levels outside minimum..maximum.

    Raises:
        UserError: naming the field, the number found and the numbers allowed.
    """
    if found < minimum or (maximum is not None and found > maximum):
        upper = "" if maximum is None else f" and at most {maximum}"
        raise UserError(f"{field}: found {found}, expected a whole number, at least {minimum}{upper}")


def require_finite(section: str, **values: float) -> None:
    """Refuses infinity and NaN, which pass many a comparison.

    Raises:
        UserError: naming the first value.
    """
    for name, found in values.items():
        if not math.isfinite(found):
            raise UserError(f"{section}.{name}: found {found}, expected a finite number")
