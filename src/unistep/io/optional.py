"""Libraries that not everybody needs: imported when they are, and named with their extra where they are missing."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from unistep.errors import UserError

TALKERS = ("diffusers.utils.logging", "transformers.utils.logging")


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


@contextmanager
def without_bars() -> Iterator[None]:
    """Loading without the progress bars of diffusers and transformers: what goes wrong is to be one line."""
    imported: list[Any] = [sys.modules[name] for name in TALKERS if name in sys.modules]
    shown = [log for log in imported if log.is_progress_bar_enabled()]
    for log in shown:
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log in shown:
            log.enable_progress_bar()
