"""Libraries that not everybody needs: imported when they are, and named with their extra where they are missing."""

from importlib import import_module
from typing import Any

from unistep.errors import UserError


def import_optional(module: str, extra: str) -> Any:
    """A module of a library that the package's `extra` brings.

    Raises:
        UserError: if it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise UserError(
            f"{library}: not installed ({error}); install it with pip install 'unistep[{extra}]'"
        ) from error
