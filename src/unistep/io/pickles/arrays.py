"""NumPy arrays and numbers, from the calls by which a pickle would make them."""

import math

import numpy as np
from numpy.typing import NDArray

from unistep.io.pickles.values import Call, Defect, LongText, kind_of

NUMPY = frozenset(
    {
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("_codecs", "encode"),  # by which Python 3 writes bytes into old protocols
        *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
        *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),  # protocol 5
    }
)
TYPES = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)} | {"f2", "f4", "f8", "b1"}


def array_of(value: object) -> NDArray[np.generic]:
    """The array behind a call, read-only; its bytes stay where they are.

    Raises:
        Defect: for anything but an array of numbers in C order, with as many bytes as its shape needs.
    """
    match value:
        case Call(name=(_, "_reconstruct"), state=(_, tuple(shape), dtype, False, content)):
            return numbers(bytes_of(content), dtype_of(dtype)).reshape(sizes(shape, "an array's shape"))
        case Call(name=(_, "_frombuffer"), args=(content, dtype, tuple(shape), "C")):
            return numbers(bytes_of(content), dtype_of(dtype)).reshape(sizes(shape, "an array's shape"))
    raise Defect(f"found {kind_of(value)} where an array of numbers in C order was expected")


def scalar_of(value: object) -> bool | int | float:
    """The plain number behind a NumPy scalar.

    Raises:
        Defect: for anything else.
    """
    match value:
        case Call(name=(_, "scalar"), args=(dtype, content)):
            return numbers(bytes_of(content), dtype_of(dtype)).reshape(()).item()
    raise Defect(f"found {kind_of(value)} where a NumPy number was expected")


def numbers(content: bytes | memoryview, dtype: np.dtype) -> NDArray[np.generic]:
    """Bytes as numbers, [n]."""
    if len(content) % dtype.itemsize:
        raise Defect(f"{len(content)} bytes of {dtype}")
    return np.frombuffer(content, dtype)


def dtype_of(value: object) -> np.dtype:
    """The type behind a `numpy.dtype` call; numbers in little-endian order only.

    Raises:
        Defect: for any other.
    """
    match value:
        case Call(name=("numpy", "dtype"), args=(kind, *_), state=(_, order, *_)):
            name = kind.decode("ascii", "replace") if isinstance(kind, bytes) else kind
            if isinstance(name, str) and name in TYPES and order in ("<", "|", b"<", b"|"):
                return np.dtype(f"<{name}")
    raise Defect("a NumPy type that is not one of numbers in little-endian order")


def bytes_of(value: object) -> bytes | memoryview:
    """Bytes, or the Latin-1 text by which old protocols write them.

    Raises:
        Defect: for anything else.
    """
    match value:
        case bytes() | memoryview():
            return value
        case Call(name=("_codecs", "encode"), args=(str() | LongText() as text, "latin1" | "latin-1")):
            return (text.text() if isinstance(text, LongText) else text).encode("latin-1")
    raise Defect(f"found {kind_of(value)} where bytes were expected")


def sizes(values: tuple[object, ...], what: str) -> tuple[int, ...]:
    """Whole numbers that are not negative, and not so large that their product overflows.

    Raises:
        Defect: for others.
    """
    whole = tuple(n for n in values if type(n) is int and n >= 0)
    if len(whole) != len(values) or len(whole) > 8 or math.prod(max(n, 1) for n in whole) >= 2**62:
        raise Defect(f"{what} is not made of at most 8 whole numbers that fit")
    return whole
