"""A pickle reader that runs nothing: it knows NumPy arrays of bytes, and every other name is refused."""

import io
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unistep.errors import UserError

BROKEN = (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, MemoryError)


class ArrayShell:
    """Stands for `numpy.ndarray` and for what rebuilds one: it only keeps the state that the pickle gives."""

    state: object = None

    def __new__(cls, *args: object) -> "ArrayShell":
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        self.state = state


class TypeShell:
    """Stands for `numpy.dtype`: it only keeps the name of the type."""

    name: object = None

    def __new__(cls, *args: object) -> "TypeShell":
        shell = super().__new__(cls)
        shell.name = args[0] if args else None
        return shell

    def __setstate__(self, state: object) -> None:
        """Byte order and the like: nothing that a byte needs."""


class TextShell:
    """Stands for `_codecs.encode`, by which Python 3 writes bytes into old pickles: Latin-1 and no other codec."""

    def __new__(cls, text: str, codec: str = "") -> bytes:
        if codec not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError(f"codec {codec!r}")
        return text.encode("latin-1")


ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): ArrayShell,
    ("numpy._core.multiarray", "_reconstruct"): ArrayShell,
    ("numpy", "ndarray"): ArrayShell,
    ("numpy", "dtype"): TypeShell,
    ("_codecs", "encode"): TextShell,
}


class RestrictedUnpickler(pickle.Unpickler):
    """Finds stand-ins only; no module is imported and no foreign callable is ever reached."""

    def __init__(self, content: bytes, source: str) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self.source = source

    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) not in ADMITTED:
            raise UserError(
                f"{self.source}: the pickle asks for {module}.{name}, expected NumPy arrays only; "
                "it was refused and nothing in it was run"
            )
        return ADMITTED[module, name]


def load_restricted(content: bytes, source: str) -> object:
    """Unpickles plain values (dict, list, int, text, bytes); an array comes as an `ArrayShell`, see `byte_array`.

    Raises:
        UserError: naming the first thing that is not admitted, or if the bytes are no whole pickle.
    """
    try:
        return RestrictedUnpickler(content, source).load()
    except UserError:
        raise
    except (*BROKEN, OverflowError, RecursionError, ImportError) as error:
        raise UserError(f"{source}: no readable pickle ({error}); fetch it again") from error


def byte_array(value: object, source: str) -> NDArray[np.uint8]:
    """The array behind a shell; only unsigned bytes in C order.

    Raises:
        UserError: for anything else.
    """
    match value:
        case ArrayShell(state=(_, tuple(shape), TypeShell(name="u1" | b"u1"), False, bytes(raw))) if whole(shape, raw):
            return np.frombuffer(raw, np.uint8).reshape(shape)
    raise UserError(f"{source}: found no NumPy array of unsigned bytes where one was expected; fetch the file again")


def whole(shape: tuple[object, ...], raw: bytes) -> bool:
    """Whether the shape is made of whole numbers and the bytes fill it."""
    sizes = [n for n in shape if isinstance(n, int) and n >= 0]
    return len(sizes) == len(shape) and int(np.prod(sizes, dtype=object)) == len(raw)
