"""What a pickle becomes when nothing in it is called: plain values, names, calls that were not made, long texts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

LONGEST_SHOWN = 80


class Defect(Exception):
    """What is wrong with a pickle, in words; `refusals` adds the name of the file."""


class Name(NamedTuple):
    """A class or function that a pickle names; only the two words are kept."""

    module: str
    name: str


@dataclass(slots=True, eq=False, repr=False)
class Call:
    """A call, or a new object, that a pickle asks for: written down, never made.

    Attributes:
        name: what would be called.
        args: with what.
        state: what the new object would be given (`BUILD`), None where nothing is.
        items: what would be set in it one by one (`SETITEMS`), as in an OrderedDict.
    """

    name: Name
    args: tuple[object, ...]
    state: object = None
    items: dict[object, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LongText:
    """A text too long to be a name: left undecoded where it lies in the file."""

    raw: memoryview
    codec: str

    def text(self) -> str:
        """The text, decoded; up to four bytes of memory for each byte of the file."""
        return str(self.raw, self.codec, "surrogatepass")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PersistentId:
    """A reference to something outside the pickle."""

    value: object


def shown(text: str) -> str:
    """Foreign text for a message: one short line of ASCII."""
    plain = ascii(text)[1:-1]
    return plain if len(plain) <= LONGEST_SHOWN else f"{plain[:LONGEST_SHOWN]}..."


def kind_of(value: object) -> str:
    """What a value is, for a message; its content is never printed, for it may be endless."""
    if isinstance(value, Call):
        return f"a {shown('.'.join(value.name))}"
    if isinstance(value, Name):
        return f"the name {shown('.'.join(value))}"
    words = {memoryview: "bytes", LongText: "str", type(None): "nothing"}
    return words.get(type(value), type(value).__name__)


def as_mapping(value: object, what: str) -> Mapping[object, object]:
    """A dictionary or an OrderedDict that the pickle filled item by item.

    Raises:
        Defect: for anything else.
    """
    if isinstance(value, dict):
        return value
    if isinstance(value, Call) and value.name == ("collections", "OrderedDict") and value.args == ():
        return value.items
    raise Defect(f"{what} is {kind_of(value)}, expected a dictionary")
