"""`read_pickle`: a pickle to inert values, or one line that says what was refused."""

import pickletools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, NoReturn

from unistep.errors import UserError
from unistep.io.pickles.cursor import Content, Cursor
from unistep.io.pickles.machine import Machine, Refused
from unistep.io.pickles.opcodes import ACTIONS
from unistep.io.pickles.values import Defect

OPCODES = {ord(code.code): code.name for code in pickletools.opcodes}
BROKEN = (Defect, ValueError, OverflowError, MemoryError)  # ValueError: text that is no UTF-8, digits that are none


class Allowed(NamedTuple):
    """What a pickle may name.

    Attributes:
        names: (module, name) of each class and function.
        expected: the same in words, for the message.
    """

    names: frozenset[tuple[str, str]]
    expected: str


def read_pickle(content: Content, source: str, allowed: Allowed) -> object:
    """Reads a pickle; no name is looked up and nothing is called.

    Numbers, texts, lists, tuples, dictionaries and sets come as they are; a name as `Name`, a call or a new object as
    `Call`, a long text as `LongText`, bytes as bytes or (long ones) as a view. Values may contain themselves and may be
    nested without end: whoever walks them bounds the walk.

    Args:
        content: the bytes, in memory or mapped from a file; they must not change while values are in use.
        source: the file's name, for messages.
        allowed: what the pickle may name.

    Raises:
        UserError: naming the first thing that is not admitted, or what is broken.
    """
    with refusals(source, allowed.expected):
        return run(Machine(Cursor(content), allowed.names))


@contextmanager
def refusals(source: str, expected: str) -> Iterator[None]:
    """Whatever is wrong with a pickle ends in one line that names the file.

    Raises:
        UserError: instead of what was raised inside.
    """
    try:
        yield
    except UserError:
        raise
    except Refused as refused:
        raise UserError(
            f"{source}: the pickle asks for {refused}, expected {expected}; it was refused and nothing in it was run"
        ) from None
    except BROKEN as error:
        raise UserError(f"{source}: no readable pickle ({describe(error)}); fetch it again") from error


def run(machine: Machine) -> object:
    """Runs a machine to the pickle's end, where its cursor then stands.

    Raises:
        Refused: for a name or an opcode that is not admitted.
        Defect, ValueError, OverflowError: for bytes that are no pickle.
    """
    cursor, budget = machine.cursor, machine.operations
    for _ in range(budget):
        code = cursor.unsigned(1)
        if code not in ACTIONS:
            refuse_opcode(machine, code)
        ACTIONS[code](machine)
        if machine.stopped:
            return machine.pop()
    raise Defect(f"more than {budget} operations")


def refuse_opcode(machine: Machine, code: int) -> NoReturn:
    """Ends the reading at an opcode that is not admitted, by its name, or at one that does not exist."""
    if code in OPCODES:
        machine.refuse(f"the opcode {OPCODES[code]}")
    raise Defect(f"byte {machine.cursor.at - 1} is {code:#04x}, which is no opcode")


def describe(error: BaseException) -> str:
    """A short reason; errors of the standard library quote what they choke on, which may be long."""
    return str(error) if isinstance(error, Defect) else type(error).__name__
